"""The ledger: reads back what was staged and every end it can have, and names what is missing, double or out of order.

Owns: the rules of that judgement, the memory it takes, reading for it. Must not know: workers, Faust, how its
answer is printed. `verify.py` reads, `books.py` keeps what was read, `events.py` judges it, `sorter.py` sorts more
than fits into memory.
"""
