// Makes events durable with franz-go, 64 goroutines at once, each waiting for every record: what any Go producer
// built on it, lib-streaming among them, has to do at least. acks=all, idempotent, lz4, linger 5 ms.
//
//	go run . SERVERS TOPIC COUNT < RECORDS
//
// Reads the records from standard input: key, value and headers, every one as a 4-byte big-endian length and the
// bytes; the number of headers stands before them. The first tenth is not counted. Prints JSON: CPU seconds of
// the process, wall seconds, events counted.
package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

const callers = 64

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func cpu() float64 {
	var usage syscall.Rusage
	must(syscall.Getrusage(syscall.RUSAGE_SELF, &usage))
	return float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
}

func field(from io.Reader) []byte {
	var length uint32
	must(binary.Read(from, binary.BigEndian, &length))
	data := make([]byte, length)
	_, err := io.ReadFull(from, data)
	must(err)
	return data
}

func read(count int, topic string) []*kgo.Record {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	records := make([]*kgo.Record, count)
	for number := range records {
		record := &kgo.Record{Topic: topic, Key: field(in), Value: field(in)}
		var headers uint32
		must(binary.Read(in, binary.BigEndian, &headers))
		for range headers {
			record.Headers = append(record.Headers, kgo.RecordHeader{Key: string(field(in)), Value: field(in)})
		}
		records[number] = record
	}
	return records
}

func main() {
	count, err := strconv.Atoi(os.Args[3])
	must(err)
	records := read(count, os.Args[2])
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(os.Args[1], ",")...),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.ProducerLinger(5*time.Millisecond),
	)
	must(err)
	var done atomic.Int64
	var start, began = 0.0, time.Now()
	warm := int64(count / 10)
	var all sync.WaitGroup
	for caller := range callers {
		all.Add(1)
		go func() {
			defer all.Done()
			for number := caller; number < count; number += callers {
				must(client.ProduceSync(context.Background(), records[number]).FirstErr())
				if done.Add(1) == warm {
					start, began = cpu(), time.Now()
				}
			}
		}()
	}
	all.Wait()
	took, wall := cpu()-start, time.Since(began).Seconds()
	client.Close()
	fmt.Printf("{\"cpu\": %f, \"wall\": %f, \"events\": %d}\n", took, wall, int64(count)-warm)
}
