"""The gallery: each image with every row's map and box, and each row's extreme cases.

An image is a background of its cells, so it is stored once, in a style sheet of its
own. The extreme cases are links into the gallery, which the script turns into copies of
the cells: they cost nothing.
"""

from collections.abc import Sequence
from html import escape

import numpy as np
from jaxtyping import Int

from saliency_jax.report.comparison import Comparison, Gallery
from saliency_jax.report.html.pictures import image_uri, map_uri

HIT = 0.5  # IoU from which a score is shown as a hit


def image_styles(gallery: Gallery) -> str:
    """Returns the rules of CSS that hold the images."""
    return "\n".join(
        f'.i{number}::before{{background-image:url("{image_uri(image)}")}}'
        for number, image in enumerate(gallery.images)
    )


def gallery_section(
    comparison: Comparison, gallery: Gallery, order: Sequence[str]
) -> str:
    """Returns the controls and, of every image, its truth and every row's overlay.

    Args:
      comparison: has the rows' titles.
      gallery: to show.
      order: names of the comparison's rows; those without maps are left out.
    """
    shown = [name for name in order if name in gallery.maps]
    choices = "".join(
        f'<label><input type="checkbox" checked data-row="{number}">'
        f"{escape(comparison.rows[name].title)}</label>"
        for number, name in enumerate(shown)
    )
    images = "".join(
        f'<section class="image" id="image-{number}"><h3>{escape(caption)}</h3>'
        f'<div class="cells">{_truth_cell(gallery, number)}'
        + "".join(
            _cell(gallery, number, place, name, comparison.rows[name].title)
            for place, name in enumerate(shown)
        )
        + "</div></section>"
        for number, caption in enumerate(gallery.captions)
    )
    return f"""
<div class="tools" id="gallery-tools">
<label>maps <input type="range" id="strength" min="0" max="100" value="65"
aria-label="Strength of the maps, per cent"></label>
<label><input type="checkbox" id="boxes" checked>boxes</label>
<details><summary>rows shown</summary><div class="choices">
<button type="button" id="all-rows">all</button>
<button type="button" id="no-rows">none</button>{choices}</div></details>
</div>
<p class="key muted"><span><i class="line true"></i>ground truth</span>
<span><i class="line predicted"></i>predicted</span>
<span><i class="ramp hot"></i>1st to 99th percentile of a map</span>
<span><i class="ramp signed"></i>signed map: against, for the class</span>
<span><b>IoU {HIT}</b> or more in bold</span></p>
{images}"""


def cases_section(
    comparison: Comparison, gallery: Gallery, order: Sequence[str]
) -> str:
    """Returns of every row links to its best and worst images; "" without any."""
    shown = [name for name in order if name in gallery.maps]
    parts = []
    for place, name in enumerate(shown):
        lists = "".join(
            f"<div><h4>{label}</h4><ul>"
            + "".join(_case(gallery, name, place, int(number)) for number in numbers)
            + "</ul></div>"
            for label, cases in (("best", gallery.best), ("worst", gallery.worst))
            if (numbers := cases.get(name, ())) is not None and len(numbers)
        )
        if lists:
            title = escape(comparison.rows[name].title)
            parts.append(
                f'<section class="case"><h3>{title}</h3>'
                f'<div class="pair">{lists}</div></section>'
            )
    return "".join(parts)


def _truth_cell(gallery: Gallery, number: int) -> str:
    label = escape(f"{gallery.captions[number]}, with its ground-truth boxes")
    boxes = _boxes(gallery, number, None)
    return (
        f'<figure class="cell"><div class="picture i{number}" role="img" '
        f'aria-label="{label}">{boxes}</div><figcaption>image</figcaption></figure>'
    )


def _cell(gallery: Gallery, number: int, place: int, name: str, title: str) -> str:
    uri, signed = map_uri(gallery.maps[name][number], gallery.images.shape[1])
    alt = escape(f"map of {title} over {gallery.captions[number]}")
    predicted = gallery.boxes[name][number] if name in gallery.boxes else None
    return (
        f'<figure class="cell" id="cell-{number}-{place}" data-row="{place}">'
        f'<div class="picture grey i{number}">'
        f'<img class="{"signed" if signed else "hot"}" alt="{alt}" src="{uri}">'
        f"{_boxes(gallery, number, predicted)}</div>"
        f"<figcaption>{escape(title)} {_score(gallery, name, number)}</figcaption>"
        "</figure>"
    )


def _case(gallery: Gallery, name: str, place: int, number: int) -> str:
    return (
        f'<li><a href="#cell-{number}-{place}">{escape(gallery.captions[number])}</a> '
        f"{_score(gallery, name, number)}</li>"
    )


def _score(gallery: Gallery, name: str, number: int) -> str:
    if name not in gallery.scores or np.isnan(gallery.scores[name][number]):
        return '<span class="score">no box</span>'
    score = float(gallery.scores[name][number])
    hit = " hit" * (score >= HIT)
    return f'<span class="score{hit}">IoU {score:.2f}</span>'


def _boxes(
    gallery: Gallery, number: int, predicted: Int[np.ndarray, "4"] | None
) -> str:
    """Returns the truth, and the predicted box, as an SVG that lies over a picture."""
    side = gallery.images.shape[1]
    boxes = [("true", box) for box in gallery.truth[number]]
    if predicted is not None and predicted.any():
        boxes.append(("predicted", predicted[[1, 0, 3, 2]]))
    rectangles = ""
    for kind, (xmin, ymin, xmax, ymax) in boxes:
        rectangle = (
            f'x="{xmin}" y="{ymin}" width="{xmax - xmin}" height="{ymax - ymin}"'
        )
        rectangles += f'<rect class="under" {rectangle}/>'
        rectangles += f'<rect class="{kind}" {rectangle}/>'
    return f'<svg viewBox="0 0 {side} {side}" aria-hidden="true">{rectangles}</svg>'
