"""The report as one self-contained HTML page: no script, no font, no picture from anywhere."""

import html

from dinat_ref.command import printable
from dinat_ref.testing.registry import KINDS
from dinat_ref.testing.report.results import BAD, Report, Result

STYLE = """
:root { color-scheme: light dark; --line: #8884; --good: #1b7f4b; --bad: #c0392b; --mute: #777; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2rem; }
p.facts { color: var(--mute); margin-top: 0; }
.banner { padding: .6rem 1rem; border-left: .4rem solid var(--good); background: #1b7f4b18; }
.banner.bad { border-color: var(--bad); background: #c0392b18; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: .25rem .6rem; }
tr { border-bottom: 1px solid var(--line); } td.number { text-align: right; font-variant-numeric: tabular-nums; }
th.number { text-align: right; } td.id { font-family: ui-monospace, monospace; white-space: nowrap; }
.passed { color: var(--good); } .failed { color: var(--bad); font-weight: 600; } .skipped { color: var(--mute); }
article { border: 1px solid var(--line); border-radius: .4rem; padding: .2rem 1rem .8rem; margin: 1rem 0; }
article h3 { font-size: 1rem; margin: .6rem 0; } pre { overflow-x: auto; background: #8881; padding: .6rem .8rem; }
.bar { display: inline-block; height: .6rem; background: var(--good); vertical-align: middle; margin-right: .4rem; }
"""


def escape(text: str) -> str:
    """Text from outside, without what would command a page or a terminal; a drawing keeps its lines."""
    return "\n".join(html.escape(printable(line)) for line in text.split("\n"))


def as_html(report: Report) -> str:
    """Write a report as one HTML page.

    Example:
        >>> page = as_html(Report("my_kernel <2>", "quick", 0, "cpu", "2.13.0", []))
        >>> "my_kernel &lt;2&gt;" in page and "<script" not in page
        True
    """
    verdict = "passed" if report.passed else "interrupted" if report.interrupted else "failed"
    banner = "banner" if report.passed else "banner bad"
    facts = f"budget {report.budget}, seed {report.seed}, {report.device}, torch {report.torch}"
    restricted = "; ".join(report.restrictions) or "nothing"
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">',
        f"<title>{escape(report.kernel)}: {verdict}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(report.kernel)}</h1><p class=facts>{escape(facts)}</p>",
        f'<p class="{banner}"><strong>{verdict}</strong>: {escape(report.totals())}</p>',
        f"<p>Restricted: {escape(restricted)}.</p>",
    ]
    parts += [f"<p>{escape(note)}.</p>" for note in report.notes]
    if report.diagnoses:
        items = (
            f"<li><b>{escape(words)}</b> ({escape(', '.join(ids))})</li>" for words, ids in report.diagnoses.items()
        )
        parts.append(f"<h2>In words, this kernel looks like</h2><ul>{''.join(items)}</ul>")
    if report.failures:
        parts.append("<h2>Failures</h2>")
        parts += [_failure(result) for result in report.failures]
    for letter, kind in KINDS.items():
        rows = [_row(result) for result in report.results if result.id[0] == letter]
        if rows:
            head = (
                "<tr><th>check</th><th>law</th><th>verdict</th><th class=number>problems</th><th>worst error</th></tr>"
            )
            parts.append(f"<h2>{letter}: {kind}</h2><table>{head}{''.join(rows)}</table>")
    return "\n".join([*parts, "</body></html>", ""])


def _row(result: Result) -> str:
    look = "failed" if result.verdict in BAD else "passed" if result.verdict == "passed" else "skipped"
    worst = ""
    if result.worst is not None:
        width = min(result.worst, 1.0) * 6
        worst = f'<span class=bar style="width:{width:.2f}rem"></span>{result.worst:.2f} of the budget'
    reason = f" <small>{escape(result.reason)}</small>" if result.reason else ""
    return (
        f'<tr><td class=id>{escape(result.id)}</td><td>{escape(result.title)}</td><td class="{look}">{result.verdict}'
        f"{reason}</td><td class=number>{result.problems or ''}</td><td>{worst}</td></tr>"
    )


def _failure(result: Result) -> str:
    lines = [f"<article><h3>{escape(result.id)}: {escape(result.title)}</h3>"]
    if result.verdict == "unexpected pass":
        lines.append(f"<p>It passed, and was expected to fail: {escape(result.reason)}</p>")
    else:
        lines.append(f"<p>{escape(result.message)}</p>")
        lines.append(f"<p>Fails on {result.failing} of {result.problems} problems, for example on</p>")
        lines.append(f"<pre>Problem(&quot;{escape(result.problem)}&quot;)</pre>")
    if result.drawing:
        lines.append(f"<pre>{escape(result.drawing)}</pre>")
    if result.seen:
        lines.append(f"<p>Seen: {escape(result.seen)}</p>")
    if result.looks_like:
        lines.append(f"<p>Looks like: <b>{escape(result.looks_like)}</b></p>")
    return "".join([*lines, "</article>"])
