"""What the cache tells of its images beside their pixels, and what it keeps to itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.unit.trainer.build import image_name, make_png, make_run_file, write_archive, write_labels
from xray_trainer.dataset import open_part
from xray_trainer.evaluation.cached import read_parts
from xray_trainer.prepare.cache import open_prepared
from xray_trainer.prepare.run import prepare
from xray_trainer.progress import Progress

NAME = "Canary Smith"
"""In the column of the sex: a file's columns may be anything."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 images of 12 patients: one has a name for a sex, one no age, one an age in months."""
    folder = tmp_path_factory.mktemp("prepared")
    films = [(patient, film) for patient in range(1, 13) for film in range(2)]
    ages = {2: "", 3: "011M"}
    lines = [
        f"{image_name(*pair)},{'Mass' if pair[0] % 2 else 'Edema'},{pair[1]},{pair[0]},{ages.get(pair[0], 40 + pair[0])},"
        f"{NAME if pair[0] == 1 else 'F' if pair[0] % 2 else 'M'},{'PA' if pair[1] else ''},1,1,1,1"
        for pair in films
    ]
    write_labels(folder / "nih", lines)
    write_archive(folder / "nih" / "images_001.tar.gz", [(image_name(*pair), make_png(pair[0])) for pair in films])
    prepare(make_run_file(folder), Progress("Preparing"))
    return folder


def test_a_table_of_the_cache_has_its_images_in_the_order_of_training(folder: Path) -> None:
    prepared, manifest = open_prepared(folder / "out", "seed")
    parts, ordinals = read_parts(prepared.cache, manifest)
    table = parts.table
    assert (len(table), table.patient_count) == (24, 12)
    assert table.findings == tuple(manifest.settings["findings"])
    for name, chosen in (("train", parts.train), ("test", parts.test)):
        assert np.array_equal(table.labels[chosen], open_part(prepared.cache, manifest, name, 32).labels)
    assert not (parts.train & parts.test).any()
    patient = ordinals // 2 + 1  # as the films lie in the archive
    of_test = table.rows(parts.test)
    assert np.array_equal(of_test.labels[:, table.findings.index("Mass")], patient % 2)
    known = ~np.isin(patient, (2, 3))
    assert np.array_equal(of_test.age_years[known], 40 + patient[known])
    assert np.isnan(of_test.age_years[~known]).all()
    assert np.array_equal(of_test.follow_up, ordinals % 2)
    assert of_test.view.tolist() == ["PA" if ordinal % 2 else "" for ordinal in ordinals]
    assert set(table.sex) == {"F", "M", "other"}


def test_a_word_that_few_patients_have_is_not_in_the_cache(folder: Path) -> None:
    shards = [path.read_bytes() for path in (folder / "cache").glob("*/*.arrow")]
    assert any(b"other" in shard for shard in shards)
    assert not any(NAME.encode() in shard for shard in shards)
