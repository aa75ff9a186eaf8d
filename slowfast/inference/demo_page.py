"""Web page of `slowfast demo`, built with Gradio: predictions and heat maps of an uploaded video or image."""

from __future__ import annotations

import html
import os
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from slowfast.datasets.index.samples import VIDEO, suffixes_of
from slowfast.errors import UserError
from slowfast.event_driven.activity import Summary
from slowfast.inference.demo_analysis import Analysis, AnalysisStopped, FileAnalyzer
from slowfast.utils.files import MIB
from slowfast.utils.imports import import_extra
from slowfast.utils.logging import get_logger
from slowfast.visualization.results import BEST

KEEP = 1800  # seconds after which the files of an upload are deleted
_DELETE_EVERY = 60  # seconds between searches for such files
WAITING = 20  # maximum number of uploads waiting for the network
MAX_THRESHOLD = 1.0  # upper end of the slider
HEIGHT = 380  # height of a result in pixels
# Set before Gradio is imported: no usage statistics, no look-up of newer versions.
_PRIVATE = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "GRADIO_SHARE": "False"}


def import_gradio(folder: Path | None = None) -> Any:
    """Import Gradio with usage statistics disabled.

    Args:
        folder: Folder of uploaded files; None to leave it to Gradio.

    Raises:
        UserError: If it is not installed.
    """
    os.environ.update(_PRIVATE)
    if folder is not None:
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
    return import_extra("gradio", "demo", "slowfast demo")


class DemoPage:
    """Page for trying out a model.

    Args:
        analyzer: Analyzes the uploaded files.
        folder: Folder of the uploaded files and of the results.
        max_bytes: Largest size of an uploaded file.
    """

    def __init__(self, analyzer: FileAnalyzer, folder: Path, max_bytes: int) -> None:
        self.analyzer, self.folder, self.max_bytes = analyzer, folder, max_bytes
        self._gradio = import_gradio(folder)

    def build(self) -> Any:
        """Return the page, a `gradio.Blocks`."""
        gr, analyzer = self._gradio, self.analyzer
        title = f"{analyzer.name} demo"
        with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_DELETE_EVERY, KEEP)) as page:
            gr.Markdown(self._heading(title))
            with gr.Row():
                with gr.Column(scale=2, min_width=320):
                    inputs = self._inputs()
                    message = gr.Markdown(visible=False, container=True, elem_id="message")
                    best = gr.Label(label=f"Top {min(BEST, len(analyzer.class_names))} classes", num_top_classes=BEST)
                with gr.Column(scale=3, min_width=320):
                    outputs = [message, best, *self._outputs()]
            settings: dict[str, Any] = {
                "fn": self.analyze,
                "inputs": inputs,
                "outputs": outputs,
                "preprocess": False,  # keeps the original name of the file
                "concurrency_limit": 1,
                "concurrency_id": "model",
            }
            inputs[0].upload(api_name="analyze", **settings)
            for slider in inputs[1:]:
                slider.release(api_name=False, **settings)
        page.queue(max_size=WAITING)
        # Otherwise Gradio also takes files of the server that were not uploaded: it does not notice that the page is
        # served by an application of ours.
        page.has_launched = True
        return page

    def _heading(self, title: str) -> str:
        analyzer = self.analyzer
        weights = "**random weights: predictions mean nothing**"
        if analyzer.weights is not None:
            weights = f"weights `{_code(Path(analyzer.weights).name)}`"
        return f"# {_text(title)}\n{_text(analyzer.name)}, {len(analyzer.class_names)} classes, {weights}"

    def _inputs(self) -> list[Any]:
        gr, kinds = self._gradio, list(self.analyzer.readers)
        suffixes = sorted(suffix for kind in kinds for suffix in suffixes_of(kind))
        label = " or ".join(kind.capitalize() if place == 0 else kind for place, kind in enumerate(sorted(kinds)[::-1]))
        size = f"at most {self.max_bytes / MIB:g} MiB"
        inputs = [gr.File(label=f"{label}, {size}", file_types=suffixes, height=150, elem_id="upload")]
        _take_local_files(inputs[0])
        if self.analyzer.changed is not None:
            threshold = self.analyzer.changed.cfg.EVENT.THRESHOLD
            inputs.append(
                gr.Slider(
                    0,
                    max(MAX_THRESHOLD, threshold),
                    value=threshold,
                    step=0.005,
                    label="Threshold of event-driven inference",
                    info="A patch is computed again when it has changed by more, in normalized pixel values.",
                )
            )
        return inputs

    def _outputs(self) -> list[Any]:
        gr, readers = self._gradio, self.analyzer.readers
        shown: dict[str, Any] = {"interactive": False, "buttons": ["download"], "show_label": False}
        video: dict[str, Any] = {"loop": True, "autoplay": True, "height": HEIGHT, **shown}
        gr.Markdown("### Grad-CAM\nThe input of the network, and how much each region contributes to the class.")
        outputs = [
            gr.Video(label="Grad-CAM", visible=VIDEO in readers, **video),
            gr.Image(label="Grad-CAM", visible=VIDEO not in readers, **shown),
            gr.Markdown(),
        ]
        if self.analyzer.changed is not None:
            with gr.Column() as section:
                gr.Markdown(
                    "### Event-driven inference\nOutlined patches of a video have changed and are computed; the "
                    "results of all others are reused."
                )
                outputs += [section, gr.Video(label="Changed patches", **video), gr.Markdown()]
        return outputs

    def analyze(self, upload: dict[str, Any] | None, threshold: float | None = None) -> list[Any]:
        """Analyze an uploaded file.

        Args:
            upload: The file, as Gradio describes it: ``path`` on this machine and ``orig_name``.
            threshold: Threshold of event-driven inference; None for EVENT.THRESHOLD.

        Returns:
            The values of the outputs: those of the analysis, or a message and nothing else.
        """
        if upload is None:
            return self._shown(None, "")
        try:
            path = self._uploaded(upload)
            name = str(upload.get("orig_name") or path.name)
            result = self.analyzer(path, name, self.folder, self._threshold(threshold))
        except UserError as error:
            return self._shown(None, f"**Not analyzed.** {_text(str(error))}")
        except AnalysisStopped:
            return self._shown(None, "The server is stopping.")
        except Exception:
            get_logger().error(f"The demo failed on a file:\n{traceback.format_exc()}")
            return self._shown(None, "**Internal error.** The console of the server has the details.")
        return self._shown(result, f"**Damaged file.** {_text(result.damage)}" if result.damage else "")

    def _uploaded(self, upload: dict[str, Any]) -> Path:
        """Return the path of an uploaded file. Raises UserError for any other file of the server."""
        path = Path(str(upload.get("path", ""))).resolve()
        if not (path.is_relative_to(self.folder.resolve()) and path.is_file()):
            raise UserError("the file was not uploaded, or was deleted after half an hour. Upload it again")
        return path

    def _threshold(self, threshold: float | None) -> float | None:
        if threshold is None or self.analyzer.changed is None:
            return None
        if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not threshold >= 0:
            raise UserError("the threshold must be a number of at least 0")
        return float(threshold)

    def _shown(self, result: Analysis | None, message: str) -> list[Any]:
        gr, readers = self._gradio, self.analyzer.readers
        path = None if result is None else result.heat_map
        image = str(path) if path is not None and path.suffix == ".png" else None
        video = str(path) if path is not None and image is None else None
        empty = path is None
        values = [
            gr.update(value=message, visible=bool(message)),
            None if result is None else dict(_distinct(result.best)),
            gr.update(value=video, visible=video is not None or (empty and VIDEO in readers)),
            gr.update(value=image, visible=image is not None or (empty and VIDEO not in readers)),
            "" if result is None else _text(result.heat_title),
        ]
        if self.analyzer.changed is not None:
            patches = None if result is None else result.patches
            activity = None if result is None else result.activity
            values += [
                gr.update(visible=result is None or patches is not None),
                None if patches is None else str(patches),
                "" if activity is None else activity_table(activity),
            ]
        return values


def _take_local_files(component: Any) -> None:
    """Prevent a component from downloading an address that a request contains instead of a file."""
    move = component.async_move_resource_to_block_cache

    async def move_local(path: Any) -> Any:
        if path is not None and "://" in str(path):
            raise ValueError("addresses are not downloaded")
        return await move(path)

    component.async_move_resource_to_block_cache = move_local


def activity_table(activity: Summary) -> str:
    """Return the saved computation as a Markdown table."""
    stages = " / ".join(f"{share:.0f} %" for share in activity.active)
    rows = [
        ("frames processed", f"{activity.frames}"),
        ("multiply-adds saved", f"**{activity.macs_saved:.1f} %**"),
        ("patches computed, by stage", stages),
    ]
    if activity.top1_agreement is not None:
        rows.append(("same top-1 class as dense inference", f"{activity.top1_agreement:.1f} % of the frames"))
    return "\n".join(
        ["| against dense inference | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in rows)]
    )


def _distinct(best: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Number duplicate class names, so that none replaces another."""
    seen: dict[str, int] = {}
    for name, _ in best:
        seen[name] = seen.get(name, 0) + 1
    return [(f"{name} ({place})" if seen[name] > 1 else name, score) for place, (name, score) in enumerate(best, 1)]


def _text(text: str) -> str:
    """Escape text for HTML and Markdown."""
    escaped = html.escape(text, quote=False)
    return "".join(f"\\{c}" if c in "\\`*_[]#|~" else c for c in escaped)


def _code(text: str) -> str:
    return text.replace("`", "'")
