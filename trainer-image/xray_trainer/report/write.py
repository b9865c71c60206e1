"""Writing report.html, report.json and the plots into a run's output folder. A report that can't be made costs no run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Optional

from xray_trainer.dataset import open_part
from xray_trainer.evaluation.predictions import Predictions
from xray_trainer.files import write_json, write_text
from xray_trainer.findings import findings_proper
from xray_trainer.progress import utc_now
from xray_trainer.report.attention import attention_maps
from xray_trainer.report.contents import Film, Trained, make_contents
from xray_trainer.report.figures import make_svg, write_png
from xray_trainer.report.page import Pictures, render
from xray_trainer.report.pictures import choose_films, choose_samples, film_uri, map_uri
from xray_trainer.report.plots import make_panels, make_plots, make_sheet

LOG = logging.getLogger(__name__)

PAGE, FIGURES = "report.html", "report.json"
SEED = 9
"""Of the images that are shown: the same for every run on the same split, so that two reports show the same films."""


def write_report(
    output: Path, cache: Path, model_folder: Path, trained: Trained, held_out: Predictions
) -> Optional[str]:
    """Write the report beside the model.

    Args:
        cache: folder of the prepared images.
        model_folder: the trained model as it was saved.
        held_out: in the order of the cache.
    Returns: the page's name; None if there is no page, which the log explains.
    """
    try:
        _write(output, cache, model_folder, trained, held_out)
    except Exception:  # whatever it is: the model is trained, paid for and saved
        LOG.exception("the report could not be written; model and figures are not touched by it")
        return None
    return PAGE


def _write(output: Path, cache: Path, model_folder: Path, trained: Trained, held_out: Predictions) -> None:
    size = trained.run_file.dataset.image_size
    test, train = (open_part(cache, trained.manifest, part, size) for part in ("test", "train"))
    proper, predicted = findings_proper(held_out.findings), held_out.without_no_finding()
    shown, sampled = choose_films(predicted.labels, SEED), choose_samples(len(train), SEED)
    pixels = test.__getitems__(shown)["pixel_values"]
    maps = attention_maps(model_folder, pixels)
    films = [Film(*each) for each in zip(test.ordinals()[shown], predicted.labels[shown], predicted.scores[shown])]
    samples = [Film(*each) for each in zip(train.ordinals()[sampled], train.labels[sampled][:, proper])]
    contents = make_contents(trained, films, samples, utc_now())
    drawn, findings = make_plots(contents), contents["evaluation"]["findings"]
    for plot in [*drawn, make_sheet(findings)]:
        write_png(plot, output)
    pictures = Pictures(
        plots={plot.name: make_svg(plot) for plot in [*drawn, *make_panels(findings)]},
        films=[film_uri(grey[0]) for grey in pixels.numpy()],
        attention=None if maps is None else [map_uri(one) for one in maps],
        samples=[film_uri(grey[0]) for grey in train.__getitems__(sampled)["pixel_values"].numpy()],
    )
    write_json(output / FIGURES, contents)
    write_text(output / PAGE, render(contents, pictures))
