"""How data is handed over safely: the intake between receivers and the dataflow."""

from telflow.delivery.circuit_breaker import CircuitBreaker, CircuitBreakerSettings, CircuitState
from telflow.delivery.intake import Intake, MemoryIntake, Overloaded, RequestMeta

__all__ = [
    "CircuitBreaker",
    "CircuitBreakerSettings",
    "CircuitState",
    "Intake",
    "MemoryIntake",
    "Overloaded",
    "RequestMeta",
]
