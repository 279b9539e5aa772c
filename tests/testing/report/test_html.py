"""The report as a page."""

import json
from html.parser import HTMLParser

from dinat_ref.testing import Supports, check_kernel
from dinat_ref.testing.report.html import as_html
from dinat_ref.testing.sabotage import CORPUS

LEAN = CORPUS["even_kernel_leans_right"].function


class Balance(HTMLParser):
    """Every tag that is opened is closed, and nothing is fetched."""

    def __init__(self):
        super().__init__()
        self.open, self.fetched = [], []

    def handle_starttag(self, tag, attributes):
        self.fetched += [value for name, value in attributes if name in ("src", "href")]
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_report_as_json_and_as_a_page():
    report = check_kernel(LEAN, supports=Supports(ndim={1}), checks=["W", "N12"], name="<kernel>")
    values = json.loads(report.as_json())
    assert values["passed"] is False
    assert [entry["id"] for entry in values["results"]] == [result.id for result in report.results]
    page = as_html(report)
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert parser.fetched == []
    assert "&lt;kernel&gt;" in page
    assert "<kernel>" not in page
