"""The cluster file: which hosts run workers, where state lies, and when a worker counts as lost."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints, field_validator, model_validator

from telflow.errors import ConfigError
from telflow.settings import Duration, Settings

__all__ = ["LOCAL", "ClusterSettings", "HostSettings", "RestartSettings", "one_host", "refuse_public"]

LOCAL = "local"
"""Name of the one host of a cluster without a file."""

HostName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
_LEAST_SECRET = 16


class HostSettings(Settings):
    """A host that runs workers."""

    address: str
    """IP address or name at which the other hosts reach it: of a private network, or loopback."""

    workers: int = Field(default=1, ge=1)
    """How many workers it runs; `telflow scale` spreads another total evenly."""

    recovery_dir: Path | None = None
    """Folder of the flow's state on this host; by default the cluster's."""


class RestartSettings(Settings):
    """What happens when a worker is lost: all are started again from the last epoch that all had finished."""

    limit: int = Field(default=10, ge=0)
    """Give up after so many restarts within `within`."""

    within: Duration = timedelta(minutes=10)
    """The time in which restarts are counted."""

    initial_interval: Duration = Field(default=timedelta(milliseconds=500), gt=timedelta())
    """Wait before the second restart in a row; the first one does not wait, each further one waits twice as long."""

    max_interval: Duration = timedelta(seconds=30)
    """Longest wait."""


class ClusterSettings(Settings):
    """Workers on one host or several."""

    hosts: Mapping[HostName, HostSettings] = Field(min_length=1)
    """The hosts by name. The first one decides when workers start and stop; the others do what it says."""

    recovery_dir: Path
    """Folder of the flow's state, on each host its own part."""

    port: int = Field(default=9310, ge=0, le=65_000)
    """Workers talk to each other at this port and, on the same host, those after it. What they send can make a worker
    run any code, and nothing proves who sends it: a private network only. 0: free ports, for one host only."""

    control_port: int = Field(default=9309, ge=0, le=65_535)
    """Where the first host talks to the others; only with several hosts."""

    secret: SecretStr | None = None
    """Proves to each other that hosts belong together, at least 16 characters; only with several hosts, and required
    there. Best from the environment: `${env:TELFLOW_CLUSTER_SECRET}`."""

    allow_public: bool = False
    """Allow worker and control ports on addresses outside of private networks."""

    silence_timeout: Duration = Field(default=timedelta(seconds=5), ge=timedelta(seconds=1))
    """A worker that has said nothing for so long is lost: stopped, or its host is gone."""

    hang_timeout: Duration = Field(default=timedelta(seconds=8), ge=timedelta(seconds=1))
    """A worker hangs when one call of the flow takes so long, waits for a full queue excluded."""

    start_timeout: Duration = timedelta(seconds=60)
    """How long workers may take until all run."""

    drain_timeout: Duration = timedelta(seconds=30)
    """How long a drain may take; what is not done then is done after the next start."""

    restart_drain_timeout: Duration = timedelta(seconds=2)
    """The same for the drain before all start again because one worker was told to end: senders wait for the start.
    One that is cut short is like a lost worker: destinations may get an epoch's data again."""

    backup_interval: Duration = timedelta()
    """How long state that is no longer needed is kept. With several hosts set it to the time between backups, so that
    copies taken one after the other still have an epoch in common."""

    restarts: RestartSettings = RestartSettings()
    """When a worker is lost."""

    @field_validator("secret")
    @classmethod
    def _long(cls, secret: SecretStr | None) -> SecretStr | None:
        if secret is not None and len(secret.get_secret_value()) < _LEAST_SECRET:
            raise ValueError(f"expected at least {_LEAST_SECRET} characters; `openssl rand -hex 32` makes a good one")
        return secret

    @model_validator(mode="after")
    def _check(self) -> ClusterSettings:
        if len(self.hosts) > 1:
            if self.secret is None:
                raise ValueError("secret: expected one for several hosts; `openssl rand -hex 32` makes a good one")
            if not self.port or not self.control_port:
                raise ValueError("port, control_port: expected numbers above 0, which the other hosts can know")
        return self

    @property
    def first(self) -> str:
        """Name of the host that decides."""
        return next(iter(self.hosts))

    @property
    def workers(self) -> int:
        """How many workers all hosts run together."""
        return sum(host.workers for host in self.hosts.values())

    def recovery_dir_of(self, host: str) -> Path:
        """Return the folder of the state on a host."""
        return self.hosts[host].recovery_dir or self.recovery_dir

    def placed(self, workers: int) -> list[str]:
        """Return the host of each worker, all workers of a host side by side.

        The numbers of the file when they fit, else evenly.
        """
        if workers == self.workers:
            return [name for name, host in self.hosts.items() for _ in range(host.workers)]
        count, more = divmod(workers, len(self.hosts))
        return [name for n, name in enumerate(self.hosts) for _ in range(count + (n < more))]


def one_host(workers: int, recovery_dir: Path, backup_interval: timedelta = timedelta()) -> ClusterSettings:
    """Return the settings of a cluster on this host alone."""
    host = HostSettings(address="127.0.0.1", workers=workers)
    return ClusterSettings(hosts={LOCAL: host}, recovery_dir=recovery_dir, port=0, backup_interval=backup_interval)


def refuse_public(settings: ClusterSettings) -> None:
    """Make sure that no worker listens where strangers could reach it.

    Raises:
        ConfigError: An address is public, unknown, or stands for all addresses of a host.
    """
    if settings.allow_public:
        return
    for name, host in settings.hosts.items():
        for address in _resolve(name, host.address):
            if not (address.is_private or address.is_loopback) or address.is_unspecified:
                raise ConfigError(
                    f"hosts.{name}.address: expected an address of a private network, got {host.address} ({address}); "
                    "who reaches a worker's port can run code in it\n"
                    "  hint: allow_public: true, if a firewall lets only the other hosts in"
                )


def _resolve(name: str, address: str) -> set[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    try:
        found = socket.getaddrinfo(address, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise ConfigError(f"hosts.{name}.address: expected an address or a name, got {address}: {error}") from error
    return {ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found}
