"""What a conversion did: the answer of `convert`, which the command line, pages and notebooks show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ckptconv.conversion.statistics import TensorStatistics
from ckptconv.methods.interface import Licence, Method
from ckptconv.planning.copies import Copy
from ckptconv.planning.plan import Plan
from ckptconv.sources.file import Transfer


@dataclass(frozen=True)
class Receipt:
    """What a conversion did, or would do (``written`` False). Sizes in bytes, time in seconds.

    ``fingerprint`` is the SHA-256 over one line a tensor, in order of name: name, type, shape, SHA-256 of its bytes.
    It does not depend on the output's format. ``proved`` counts the tensors that were read back and found equal.
    ``transfers`` are the files that were fetched, if the source lies elsewhere, ``checksums`` how many of the kept
    storages have a checksum in the file that was verified. ``release`` is the name of the published file that the
    source is: one asked for by its name or its address, or a file with its name and its published digest. ``licence``
    is that of these weights, None where no one states it.
    ``copies`` are the other places in the file that hold the same network.
    ``dangerous`` are the names that the file would have had called where it is unpickled; none was.
    ``report`` is the page that was written about it, '' for none; ``statistics`` are what it says of the numbers of
    each tensor, by its name: they are measured only for a report.
    """

    source: str
    source_format: str
    source_size: int
    plan: Plan
    method: Method
    method_named: bool
    also: tuple[str, ...]
    destination: str
    destination_format: str
    destination_size: int
    dtype: str | None
    fingerprint: str
    proved: int
    written: bool
    seconds: float
    release: str = ""
    licence: Licence | None = None
    transfers: tuple[Transfer, ...] = ()
    checksums: int = 0
    copies: tuple[Copy, ...] = ()
    dangerous: tuple[str, ...] = ()
    report: str = ""
    statistics: Mapping[str, TensorStatistics] = field(default_factory=dict)

    def to_html(self) -> str:
        """The page about it, which loads nothing. Of the tensors' numbers it says what ``statistics`` has."""
        from ckptconv.conversion.report.page import page

        return page(self)

    def _repr_html_(self) -> str:
        from ckptconv.conversion.report.page import small

        return small(self)

    def __repr__(self) -> str:
        return (
            f"Receipt(source={self.source!r}, destination={self.destination!r}, format={self.destination_format!r}, "
            f"method={self.method.name!r}, written={self.written}, proved={self.proved}, "
            f"fingerprint='{self.fingerprint[:16]}…')"
        )
