"""Every page in a real browser, on a narrow and on a wide screen, by day and by night.

What a browser is not needed for is tested beside each page, with `tests.support.html_page`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ckptconv.report.markup import element
from ckptconv.report.page import page as report_page
from tests.report import pages
from tests.support import browser

pytestmark = [
    pytest.mark.skipif(browser.found() is None, reason=f"none of {', '.join(browser.NAMES)} is installed"),
    # pycocotools' masks are older than numpy 2
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
]

# Text that reaches outside its drawing, of those that are shown.
_CUT_TEXT = """[...document.querySelectorAll('svg text')].filter(text => {
  const mine = text.getBoundingClientRect(), around = text.closest('svg').getBoundingClientRect()
  return mine.width && (mine.left < around.left - 1 || mine.right > around.right + 1)
}).map(text => text.textContent).join('; ')"""
_TEXTS_THAT_OVERLAP = """(() => { const found = []
  for (const svg of document.querySelectorAll('svg:not(.pair svg)')) {  // objects of a photograph may be close
    const all = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()])
    all.forEach(([one, a], i) => all.slice(i + 1).forEach(([other, b]) => {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left)
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top)
      if (wide > 1 && high > 4) found.push(one + ' / ' + other)
    }))
  }
  return found.join('; ') })()"""
_BACKGROUND = "getComputedStyle(document.body).backgroundColor"
_UNREACHABLE = """[...document.querySelectorAll('.wide')].filter(
  part => part.scrollWidth > part.clientWidth + 1 && part.tabIndex < 0).length"""


@pytest.fixture(scope="module")
def one() -> Iterator[browser.Browser]:
    with browser.browser() as running:
        yield running


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.mmdet] * (n in pages.OF_MMDETECTION)) for n in pages.PAGES]
)
def test_a_page_fits_and_needs_nothing(one, tmp_path, name, width, dark):
    page = tmp_path / "page.html"
    page.write_text(pages.PAGES[name](tmp_path), encoding="utf-8")
    values = {"cut": _CUT_TEXT, "overlap": _TEXTS_THAT_OVERLAP, "background": _BACKGROUND, "unreachable": _UNREACHABLE}
    seen = one.open(page, width, dark, values=values)
    assert seen.scroll_width <= width
    assert (seen.logged, seen.requested) == ([], [])
    assert (seen.values["cut"], seen.values["overlap"]) == ("", "")
    assert seen.values["background"] == ("rgb(22, 22, 26)" if dark else "rgb(255, 255, 255)")
    assert seen.values["unreachable"] == 0


@pytest.mark.torch
def test_what_is_folded_is_printed_by_day(one, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(pages.PAGES["convert-vit"](tmp_path), encoding="utf-8")
    hidden = "[...document.querySelectorAll('details > div')].filter(div => !div.checkVisibility()).length"
    folded = one.open(page, 1280, values={"hidden": hidden})
    printed = one.open(page, 1280, dark=True, media="print", values={"hidden": hidden, "background": _BACKGROUND})
    assert folded.values["hidden"] > 40  # a block each
    assert printed.values["hidden"] == 0
    assert printed.values["background"] == "rgb(255, 255, 255)"


@pytest.mark.torch
def test_what_is_folded_opens_with_the_keyboard(one, tmp_path):
    page = tmp_path / "page.html"
    page.write_text(pages.PAGES["convert-vit"](tmp_path), encoding="utf-8")
    values = {"open": "document.querySelectorAll('details[open]').length", "at": "document.activeElement.tagName"}
    assert one.open(page, 400, keys=["Tab"], values=values).values == {"open": 0, "at": "SUMMARY"}
    assert one.open(page, 400, keys=["Tab", "Enter", "Tab"], values=values).values == {"open": 1, "at": "DIV"}


def test_a_page_could_not_load_or_run_anything(one, tmp_path):
    """Markup that a hostile name would be, were it not escaped, pasted into a page."""
    text = report_page("t", [element("h1", "h")])
    hostile = "<img src='https://127.0.0.1:9/x.png' alt='x'><script>document.title = 'ran'</script>"
    path = tmp_path / "page.html"
    path.write_text(text.replace("<h1>", f"{hostile}<h1>"), encoding="utf-8")
    seen = one.open(path, 400, values={"title": "document.title"})
    assert seen.values["title"] == "t"
    assert len([line for line in seen.logged if "Content Security Policy" in line]) == 2


def test_the_browser_sees_what_is_wrong(one, tmp_path):
    """The control: a page with each fault."""
    page = tmp_path / "page.html"
    wide = "<div style='width: 3000px'>w</div><img src='https://127.0.0.1:9/x.png' alt='x'>"
    drawing = "<svg viewBox='0 0 9 9' width='90'><text x='0' y='5'>aaaa</text><text x='1' y='5'>bbbb</text></svg>"
    page.write_text(f"<!doctype html>{wide}{drawing}<script>console.error('broken')</script>", encoding="utf-8")
    seen = one.open(page, 400, values={"cut": _CUT_TEXT, "overlap": _TEXTS_THAT_OVERLAP})
    assert seen.scroll_width > 3000
    assert seen.requested == ["https://127.0.0.1:9/x.png"]
    assert any("broken" in line for line in seen.logged)
    assert "aaaa" in seen.values["cut"]
    assert seen.values["overlap"] == "aaaa / bbbb"
