"""Pieces of a self-contained HTML page: style, numbers, tables, figures, the frame around sections.

Everything is inline (SVG, no script, no link to another place) and reads in light and in dark.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np

from snnsim import plots

__all__ = ["STYLE", "figure_html", "number_text", "page_html", "table_html"]

STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1d2125; --muted: #6b737b; --line: #d9dee3;
  --card: #f5f7f9; --good: #0a7d4f; --bad: #b3401a; --link: #0a5ea8; }
@media (prefers-color-scheme: dark) { :root { --page: #14181c; --ink: #e4e8ec; --muted: #97a1ab;
  --line: #323a42; --card: #1c2228; --good: #4fd19b; --bad: #ff9468; --link: #7dbdf5;
  --plot-blue: #4ea6e0; --plot-vermillion: #f5833c; --plot-green: #37c99a; --plot-purple: #e2a0c6;
  --plot-orange: #f2b93b; --plot-sky: #8fd0f7; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 62rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2.2rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .35rem; }
h2 { font-size: 1.22rem; margin: 2.6rem 0 .4rem; padding-top: .7rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.4rem 0 .3rem; }
p { margin: .4rem 0 .8rem; max-width: 46rem; }
.lead { font-size: 1.05rem; }
.muted, figcaption, caption { color: var(--muted); font-size: .9rem; }
nav a { color: var(--link); margin-right: .9rem; text-decoration: none; white-space: nowrap; }
nav a:hover { text-decoration: underline; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10.5rem, 1fr)); gap: .7rem;
  margin: 1.2rem 0; padding: 0; list-style: none; }
.tiles li { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: .65rem .85rem; }
.tiles b { display: block; font-size: 1.4rem; line-height: 1.25; font-variant-numeric: tabular-nums; }
.tiles span { display: block; color: var(--muted); font-size: .84rem; line-height: 1.35; margin-top: .15rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: 1rem 0 1.4rem; overflow-x: auto; }
figure svg { max-width: 100%; height: auto; display: block; }
figcaption { margin-top: .3rem; max-width: 46rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 1.5rem; }
table { border-collapse: collapse; font-size: .94rem; margin: .8rem 0 1.2rem; max-width: 100%;
  font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .3rem; }
th, td { padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--line); text-align: left;
  vertical-align: top; overflow-wrap: anywhere; }
td.number, th.number { text-align: right; padding-right: 1.2rem; }
thead th { color: var(--muted); font-weight: 600; font-size: .86rem; }
tbody th { font-weight: 500; }
code, pre { font: .86rem/1.5 ui-monospace, "DejaVu Sans Mono", monospace; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem;
  overflow-x: auto; }
details > summary { cursor: pointer; color: var(--link); margin: .5rem 0; }
footer { color: var(--muted); font-size: .85rem; padding: 2.5rem 1.25rem 3rem; }
@media print { nav { display: none; } h2 { break-after: avoid; } figure, table { break-inside: avoid; } }
"""


def number_text(value: Any) -> str:
    """A number as people read it: thousands apart, four significant digits for fractions."""
    if value is None:
        return "not known"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{int(value):,}"
    if isinstance(value, (float, np.floating)):
        return f"{value:,.0f}" if abs(float(value)) >= 1e4 else f"{value:.4g}"
    return str(value)


def table_html(caption: str, head: Sequence[str], rows: Sequence[Sequence[Any]], numbers: bool = True) -> str:
    """An HTML table whose first column names the row."""
    kind = ' class="number"' if numbers else ""
    titles = "".join(f'<th scope="col"{kind if place else ""}>{escape(text)}</th>' for place, text in enumerate(head))
    body = []
    for row in rows:
        cells = "".join(f"<td{kind}>{escape(number_text(value))}</td>" for value in row[1:])
        body.append(f'<tr><th scope="row">{escape(str(row[0]))}</th>{cells}</tr>')
    top = f"<thead><tr>{titles}</tr></thead>" if head else ""
    return f"<table><caption>{escape(caption)}</caption>{top}<tbody>{''.join(body)}</tbody></table>"


def figure_html(figure: Any, name: str, description: str) -> str:
    """Return a matplotlib figure as inline SVG with its description below."""
    drawing = plots.to_svg(figure, name, description)
    return f"<figure>{drawing}<figcaption>{escape(description)}</figcaption></figure>"


def page_html(
    title: str, lead: str, sections: Sequence[tuple[str, str, str]], *, top: str = "", footer: str = ""
) -> str:
    """Return a whole page.

    Args:
        title: Heading, text.
        lead: One line below it, text.
        sections: Name for links, heading (text) and content (HTML) of each.
        top: HTML between the links and the sections.
        footer: Text at the end.
    """
    links = "".join(f'<a href="#{name}">{escape(heading)}</a>' for name, heading, _ in sections)
    body = "".join(
        f'<section id="{name}" aria-labelledby="{name}-h"><h2 id="{name}-h">{escape(heading)}</h2>{content}</section>'
        for name, heading, content in sections
    )
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><link rel='icon' href='data:,'><style>{STYLE}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f'<nav aria-label="Sections">{links}</nav>{top}</header>'
        f"<main>{body}</main><footer>{escape(footer)}</footer></body></html>\n"
    )
