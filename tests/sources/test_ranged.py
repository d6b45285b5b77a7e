"""Which bytes are there, which are asked for, and in how few parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptconv.errors import UnreadableError
from ckptconv.sources.address import Address
from ckptconv.sources.interface import Fetching
from ckptconv.sources.ranged import RangeSet, RemoteSource, merge_ranges
from tests.support.server import numbers

span = st.tuples(st.integers(0, 60), st.integers(0, 60)).map(lambda pair: (min(pair), max(pair)))
spans = st.lists(span.filter(lambda s: s[0] < s[1]), max_size=12)


def covered(ranges) -> set[int]:
    return {at for start, end in ranges for at in range(start, end)}


@given(spans, span)
def test_what_is_missing_is_what_was_never_added(added, asked):
    there = RangeSet()
    for start, end in added:
        there.add(start, end)
    gaps = there.missing(*asked)
    assert covered(gaps) == covered([asked]) - covered(added)
    assert gaps == sorted(gaps)
    assert all(before[1] < after[0] for before, after in zip(gaps, gaps[1:], strict=False))


@given(spans, st.integers(0, 80))
def test_joined_ranges_hold_what_was_asked_and_waste_no_more_than_allowed(ranges, waste):
    parts = merge_ranges(ranges, waste)
    asked, got = covered(ranges), covered(parts)
    assert asked <= got
    assert len(got - asked) <= waste
    assert sum(end - start for start, end in parts) == len(got)
    assert len(parts) <= len(merge_ranges(ranges, 0))


def test_the_smallest_gaps_are_bridged_first():
    ranges = [(0, 10), (15, 20), (40, 50), (52, 60)]
    assert merge_ranges(ranges, 0) == ranges
    assert merge_ranges(ranges, 7) == [(0, 20), (40, 60)]
    assert merge_ranges(ranges, 27) == [(0, 60)]


class Kept:
    """A far file in memory that notes what it is asked for."""

    version, ranged, published, requests, received = "", True, None, 0, 0

    def __init__(self, content: bytes, head: int = 0) -> None:
        self.content, self.size, self.head, self.asked = content, len(content), content[:head], []

    def read(self, start: int, end: int) -> Iterator[bytes]:
        self.asked.append((start, end))
        for at in range(start, end, 1000):
            yield self.content[at : min(end, at + 1000)]

    def require_unchanged(self) -> None:
        pass

    def close(self) -> None:
        pass


CONTENT = numbers(1_000_000)


@pytest.fixture
def remote():
    return Kept(CONTENT, head=65536)


@pytest.fixture
def remote_source(remote):
    source = RemoteSource(Address("https://example.org/some.pth", Fetching()), remote, Fetching())
    yield source
    source.close()


@given(st.lists(st.tuples(st.integers(0, 999_999), st.integers(0, 200_000)), max_size=8))
def test_every_byte_is_right_and_crosses_once(places):
    remote = Kept(CONTENT)
    source = RemoteSource(Address("https://example.org/some.pth", Fetching()), remote, Fetching())
    for offset, length in places:
        length = min(length, len(CONTENT) - offset)
        assert source.read(offset, length) == CONTENT[offset : offset + length]
        into = bytearray(length)
        source.read_into(memoryview(into), offset)
        assert into == CONTENT[offset : offset + length]
    asked = sorted(remote.asked)
    assert all(before[1] <= after[0] for before, after in zip(asked, asked[1:], strict=False))
    assert all(0 <= start < end <= len(CONTENT) for start, end in asked)
    source.close()


def test_the_first_bytes_are_not_asked_for_again(remote_source, remote):
    assert remote_source.read(0, 65536) == CONTENT[:65536]
    assert remote.asked == []


def test_a_small_read_takes_what_stands_behind_it_and_at_the_end_before_it(remote_source, remote):
    assert remote_source.read(300_000, 8) == CONTENT[300_000:300_008]
    assert remote_source.read(999_978, 22) == CONTENT[-22:]
    assert remote_source.read(999_978 - 20, 20) == CONTENT[-42:-22]
    assert remote.asked == [(300_000, 365_536), (1_000_000 - 65536, 1_000_000)]


def test_what_is_prepared_comes_in_few_parts_and_is_then_there(remote_source, remote):
    remote_source.prefetch([(100_000, 200_000), (200_064, 300_000), (900_000, 950_000)])
    assert remote.asked == [(100_000, 300_000), (900_000, 950_000)]
    before = list(remote.asked)
    assert remote_source.read(100_000, 200_000) == CONTENT[100_000:300_000]
    assert remote.asked == before


def test_the_waste_is_bounded_over_all_that_is_prepared():
    content = numbers(4_000_000)
    remote = Kept(content)
    source = RemoteSource(Address("https://example.org/some.pth", Fetching()), remote, Fetching())
    for start in range(0, 4_000_000, 400_000):
        source.prefetch([(start, start + 100), (start + 200_000, start + 200_100)])
    assert sum(end - start for start, end in remote.asked) <= 20 * 100 + (1 << 19)
    source.close()


def test_nothing_outside_the_file_is_asked_for(remote_source, remote):
    for offset, length in ((999_999, 2), (-1, 1), (1_000_001, 0)):
        with pytest.raises(UnreadableError, match=r"https://example.org/some.pth is truncated"):
            remote_source.read(offset, length)
    assert remote.asked == []


def test_copies_into_another_file_what_was_not_there_yet(remote_source, tmp_path):
    with (tmp_path / "out").open("w+b") as out:
        if remote_source.copy_to(out.fileno(), 0, 500_000, 100_000):
            assert (tmp_path / "out").read_bytes() == CONTENT[500_000:600_000]
