"""What `refract bench` shows to people."""

from typing import TYPE_CHECKING

from pipeline.cli.output import print_note, print_table

if TYPE_CHECKING:
    from pipeline.engine.measure import Measured


def print_measured(found: "Measured") -> None:
    """Prints a table of figures."""
    rival = found.comparison
    peak = f"{found.peak_tflops:,.2f} TFLOP/s that a matrix product reaches here"
    rows = [
        ["documents/s", _number(found.documents_per_s), "texts a second, each under all tasks"],
        ["tokens/s", _number(found.tokens_per_s), f"of whole prompts, {found.num_tokens:,} in all"],
        ["padding", _percent(found.padding_share), "of the computed tokens"],
        ["computed", _percent(found.computed_share), "of the prompts' tokens; the rest is reused instructions"],
        ["utilisation", _percent(found.flop_utilisation), f"of the {peak}"],
        ["memory", f"{found.memory_mb:,.0f} MB", "peak of this process"],
    ]
    if found.device_memory_mb is not None:
        rows.append(["device memory", f"{found.device_memory_mb:,.0f} MB", "peak allocated on the device"])
    if found.ratio is not None:
        does = f"{_number(rival.documents_per_s)} documents/s, {rival.peak_mb:,.0f} MB"
        rows.append(["ratio", f"{found.ratio:.2f}", f"to sentence-transformers {rival.version} float32: {does}"])
    cosine = found.engine.get("cosine_to_float32")
    if cosine is not None:
        rows.append(["cosine", f"{cosine['mean']:.5f}", f"to float32 on a few texts, {cosine['min']:.5f} at least"])
    print_table(
        f"{found.model} on {found.device}, {found.dtype}, {found.threads} threads: "
        f"{found.num_texts:,} texts x {found.num_tasks} tasks",
        ["figure", "value", "what it is"],
        rows,
    )
    if rival.skipped is not None:
        print_note(f"not compared: {rival.skipped}")


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
