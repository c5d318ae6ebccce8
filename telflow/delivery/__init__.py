"""How data is handed over safely: the intake between receivers and the dataflow."""

from telflow.delivery.intake import Intake, MemoryIntake, Overloaded, RequestMeta

__all__ = ["Intake", "MemoryIntake", "Overloaded", "RequestMeta"]
