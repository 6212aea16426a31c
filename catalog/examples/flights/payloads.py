"""What the events of `catalog.examples.flights` carry. Times are in UTC; units are in the names."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Carrier = Annotated[str, Field(pattern=r"^[0-9A-Z]{2}$")]
AirportCode = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
TailNumber = Annotated[str, Field(pattern=r"^[0-9A-Z]{4,7}$")]


class Origin(StrEnum):
    """The airports of New York, by IATA code."""

    NEWARK = "EWR"
    KENNEDY = "JFK"
    LA_GUARDIA = "LGA"


class _Payload(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class _Flight(_Payload):
    carrier: Carrier
    flight_number: Annotated[int, Field(ge=1, le=9999)]
    tail_number: TailNumber | None
    origin: Origin
    destination: AirportCode
    distance_mi: Annotated[int, Field(gt=0)]
    scheduled_departure: AwareDatetime
    scheduled_arrival: AwareDatetime


class FlightDeparted(_Flight):
    """Payload of `flight.departed`. A negative delay is an early departure."""

    departure: AwareDatetime
    departure_delay_min: int


class FlightArrived(_Flight):
    """Payload of `flight.arrived`. A negative delay is an early arrival."""

    arrival: AwareDatetime
    arrival_delay_min: int
    air_time_min: Annotated[int, Field(gt=0)]


class FlightCancelled(_Flight):
    """Payload of `flight.cancelled`: the plan is all there is."""


class FlightDiverted(_Flight):
    """Payload of `flight.diverted`; `late_arrival` is None where it never reached its destination."""

    late_arrival: AwareDatetime | None


class WeatherObserved(_Payload):
    """Payload of `weather.observed`: an hourly reading; None where the instrument gave nothing."""

    station: Origin
    observed_at: AwareDatetime
    temperature_f: float | None
    dew_point_f: float | None
    humidity_pct: Annotated[float, Field(ge=0, le=100)] | None
    wind_direction_deg: Annotated[int, Field(ge=0, le=360)] | None
    wind_speed_mph: Annotated[float, Field(ge=0)] | None
    wind_gust_mph: Annotated[float, Field(ge=0)] | None
    precipitation_in: Annotated[float, Field(ge=0)]
    pressure_mbar: Annotated[float, Field(gt=0)] | None
    visibility_mi: Annotated[float, Field(ge=0)]
