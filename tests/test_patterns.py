"""Patterns and templates: what matches what."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ckptconv import patterns
from ckptconv.patterns import Pattern

MANY = settings(deadline=None, derandomize=True, max_examples=300)


@pytest.mark.parametrize(
    ("pattern", "key", "captures"),
    [
        ("queue", "queue", {}),
        ("queue", "queue_ptr", None),
        ("queue", "module.queue", None),
        ("queue", "queue.x", None),
        ("encoder.{x}", "encoder.weight", {"x": "weight"}),
        ("encoder.{x}", "encoder.conv1.weight", None),
        ("encoder.{x}", "encoder", None),
        ("encoder.{x}", "encoder.", None),
        ("encoder.{x}", "encoder_k.weight", None),
        ("encoder.{x}", "my.encoder.weight", None),
        ("encoder.{x...}", "encoder.weight", {"x": "weight"}),
        ("encoder.{x...}", "encoder.conv1.weight", {"x": "conv1.weight"}),
        ("encoder.{x...}", "encoder", None),
        ("encoder.{x...}", "encoder.", None),
        ("encoder.{x...}", "encoder..weight", None),
        ("encoder.{x...}", "encoder.a..b", None),
        ("encoder.{x...}", "encoder.weight.", None),
        ("encoder.{x...}", "encoder_k.weight", None),
        ("{x...}", "a.b.c", {"x": "a.b.c"}),
        ("{x...}", ".a", None),
        ("{x...}", "", None),
        ("{x...}.weight", "a.b.weight", {"x": "a.b"}),
        ("{x...}.weight", "weight", None),
        ("{x...}.weight", "a.b.bias", None),
        ("{x...}.weight", "a.b.weight.c", None),
        ("{x...}.weight", "a..weight", None),
        ("{a}.{x...}.{b}", "1.2.3.4", {"a": "1", "x": "2.3", "b": "4"}),
        ("{a}.{x...}.{b}", "1.2", None),
        ("layer{n}.{i}.conv{c}.weight", "layer3.12.conv2.weight", {"n": "3", "i": "12", "c": "2"}),
        ("layer{n}.{x...}", "layer.0.weight", None),
        ("layer{n}.{x...}", "layer10.0.weight", {"n": "10", "x": "0.weight"}),
        ("{twin}_backbone.{x...}", "key_backbone.conv1.weight", {"twin": "key", "x": "conv1.weight"}),
        ("{twin}_backbone.{x...}", "backbone.conv1.weight", None),
        ("{twin}_backbone.{x...}", "my.key_backbone.conv1.weight", None),
        ("a.b", "axb", None),
        ("a+.{x}", "aa.b", None),
        ("a+.{x}", "a+.b", {"x": "b"}),
        ("(a|b).{x}", "a.c", None),
        ("{x}", "größe", {"x": "größe"}),
        ("{x}", "with space", {"x": "with space"}),
    ],
)
def test_a_pattern_is_anchored_and_reads_segments(pattern: str, key: str, captures: dict[str, str] | None) -> None:
    assert Pattern(pattern).match(key) == captures


@pytest.mark.parametrize(
    ("pattern", "suffix", "ends"),
    [
        ("a.b.c", "a.b.c", ("a", "c")),
        ("queue", "queue", ("queue", "queue")),
        ("a.{x}", "", ("a", None)),
        ("a{x}", "", (None, None)),
        ("{x}.w", ".w", (None, "w")),
        ("{x}w", "w", (None, None)),
        ("a.l{x}.b{y}.w", ".w", ("a", "w")),
        ("a.{x...}.b.w", ".b.w", ("a", "w")),
        ("{x...}", "", (None, None)),
    ],
)
def test_ends_are_what_every_match_starts_and_ends_with(
    pattern: str, suffix: str, ends: tuple[str | None, str | None]
) -> None:
    assert (Pattern(pattern).suffix, Pattern(pattern).ends) == (suffix, ends)


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    [("queue", "queue"), ("a.b.{x...}", "a.b."), ("layer{n}.{i}", "layer"), ("{x...}.weight", ""), ("{x}", "")],
)
def test_prefix_is_what_every_match_starts_with(pattern: str, prefix: str) -> None:
    assert Pattern(pattern).prefix == prefix


a_key = st.lists(st.sampled_from(["", "a", "b1", "encoder", "x_y"]), min_size=0, max_size=5).map(".".join)


@MANY
@given(a_key, st.sampled_from(["", "encoder.", "a.b1."]))
def test_a_whole_tail_takes_what_the_general_way_takes(key: str, prefix: str) -> None:
    """``prefix{x...}`` is matched without a regular expression; with one more segment at the end, with one."""
    short, general = Pattern(prefix + "{x...}"), Pattern(prefix + "{x...}.end")
    assert short.match(key) == general.match(key + ".end")


def test_the_doctests_of_the_module_run() -> None:
    result = doctest.testmod(patterns)
    assert result.attempted >= 2
    assert result.failed == 0
