"""What a prediction leaves: a table on the screen, predictions.json and predictions.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from slowfast.inference.predictor import Prediction
from slowfast.utils.json_files import write_json
from slowfast.visualization.results import PREDICTIONS, SCORE_DIGITS, TEST_RESULTS, class_row, write_predictions
from slowfast.visualization.tables import tail

TABLE, LIST = "predictions.json", PREDICTIONS
SHOWN = 20  # media in the table on the screen


def predictions_table(predictions: Sequence[Prediction]) -> str:
    """The best classes of the first SHOWN media that were read, a line each."""
    read = [prediction for prediction in predictions if prediction.scores is not None]
    rows = []
    for prediction in read[:SHOWN]:
        for place, (name, score) in enumerate(prediction.best()):
            rows.append((tail(prediction.path, 48) if place == 0 else "", tail(name, 38), f"{score:.{SCORE_DIGITS}f}"))
    text = tabulate(rows, headers=("file", "class", "score"), tablefmt="simple", disable_numparse=True)
    more = len(read) - SHOWN
    return text if more <= 0 else f"{text}\n... and {more} more in the files below"


def write_files(predictions: Sequence[Prediction], about: dict[str, Any], output: Path) -> dict[str, Path]:
    """Write both files; gives what each is and where.

    They lie in `output`, or in its folder predict where the predictions.csv of a test is there already.
    """
    folder = output / "predict" if _holds_test(output) else output
    write_json(folder / TABLE, about | _as_json(predictions))
    rows = (class_row(one.path, None, one.best_classes(), one.names) for one in predictions)
    write_predictions(rows, folder / LIST)
    return {"all predictions": folder / TABLE, "the same as a table": folder / LIST}


def _holds_test(output: Path) -> bool:
    """Check if the predictions.csv of a folder was written by a test."""
    is_own = (output / TABLE).is_file() and not (output / TEST_RESULTS).is_file()
    return (output / LIST).is_file() and not is_own


def _as_json(predictions: Sequence[Prediction]) -> dict[str, Any]:
    read, failed = [], []
    for prediction in predictions:
        best = [{"class": name, "score": round(score, SCORE_DIGITS)} for name, score in prediction.best()]
        entry: dict[str, Any] = {"path": prediction.path}
        if prediction.scores is None:
            failed.append(entry | {"reason": prediction.failure})
        else:
            read.append(entry | {"best": best} | ({"damaged": prediction.failure} if prediction.failure else {}))
    return {"predictions": read, "failed": failed}
