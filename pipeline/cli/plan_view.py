"""How `refract plan` prints an estimate."""

from typing import TYPE_CHECKING

from pipeline.cli.output import print_note, print_table

if TYPE_CHECKING:
    from pipeline.backfill.costs import Pace
    from pipeline.backfill.sample import Sample
    from pipeline.usecases.estimate import EstimateReport

_UNIT_STEP = 1_000


def print_estimate(report: "EstimateReport", gpu_hour_price: float | None) -> None:
    """Prints the tables, then what could be saved, what could not be read, and what a server needs."""
    _print_whole(report, gpu_hour_price)
    print_table(
        "Tasks",
        ["task", "model", "tokens/row", "instruction", "cut", "cost", "points", "RAM", "disk"],
        [
            [
                part.task,
                f"{part.model}, {part.dimension} values",
                f"{part.tokens.prompt:,.0f}" if part.tokens else "-",
                f"{part.tokens.instruction:,.0f}" if part.tokens else "-",
                f"{part.tokens.truncated_share:.1%}" if part.tokens else "-",
                f"{part.share:.0%}" + ("" if part.price is None else f", {part.price:,.2f}"),
                f"{part.points:,}",
                _bytes(part.ram_bytes),
                _bytes(part.disk_bytes),
            ]
            for part in report.costs.tasks
        ],
    )
    for line in [*report.costs.savings, *report.sample.faults]:
        print_note(line)
    if report.server_s is not None:
        from pipeline.usecases.estimate import SERVER_POINTS_PER_S

        print_note(
            f"The pace is that of an embedded store. A server takes about {SERVER_POINTS_PER_S:,} points a second and "
            f"shard, so {_duration(report.server_s)} with one shard"
        )


def _print_whole(report: "EstimateReport", gpu_hour_price: float | None) -> None:
    size, sample, pace, costs = report.size, report.sample, report.pace, report.costs
    rows = [
        ["input", f"{'' if size.exact else 'about '}{size.num_rows:,} rows", _files(size.num_files, size.num_bytes)],
        ["rejected", _share(sum(sample.bad.values()), sample.num_rows), _bad(sample)],
        ["duplicate texts", f"at least {sample.duplicate_texts:.1%}", "of the sample"],
        ["duplicate keys", f"at least {sample.duplicate_keys:.1%}", "of the sample; the newest version stays"],
        ["pace", f"{pace.rows_per_s:,.0f} rows/s", _measured(pace)],
        ["time", _duration(costs.seconds), f"{pace.first_s:.0f} s of them until the first rows are through"],
    ]
    if costs.gpu_hours:
        rows.append(["GPU hours", f"{costs.gpu_hours:,.2f}", "of the embedders that took part"])
    if costs.price:
        rows.append(["price", f"{costs.price:,.2f}", f"at {gpu_hour_price:,} a GPU hour"])
    print_table(f"Backfill of {report.topic}", ["", "estimate", "from"], rows)


def _files(num_files: int, num_bytes: int) -> str:
    return f"{num_files:,} files, {_bytes(num_bytes)}"


def _bad(sample: "Sample") -> str:
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in sample.bad.most_common())
    return f"sample of {sample.num_rows:,}" + (f": {reasons}" if reasons else "")


def _measured(pace: "Pace") -> str:
    busy = f", computing {pace.embedder_busy:.0%} of the time" if pace.embedder_busy else ""
    return f"measured here with {pace.num_rows:,.0f} rows and {pace.num_embedders} embedders{busy}"


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.2%}" if whole else "-"


def _bytes(count: float) -> str:
    unit, *larger = ("B", "kB", "MB", "GB", "TB")
    while count >= _UNIT_STEP and larger:
        count, unit = count / _UNIT_STEP, larger.pop(0)
    return f"{count:,.1f} {unit}"


def _duration(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes > 1 else f"{seconds:.0f} s"
