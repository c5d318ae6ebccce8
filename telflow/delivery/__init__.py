"""How data is handed over safely: the intake between receivers and the dataflow."""

from telflow.delivery.circuit_breaker import CircuitBreaker, CircuitBreakerSettings, CircuitState
from telflow.delivery.intake import Intake, MemoryIntake, Overloaded, RequestMeta
from telflow.delivery.log import Durability, Entry, Log, LogError, LogFull

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerSettings",
    "CircuitState",
    "Durability",
    "Entry",
    "Intake",
    "Log",
    "LogError",
    "LogFull",
    "MemoryIntake",
    "Overloaded",
    "RequestMeta",
]
