"""Run by the Python of each tool: its alarms on the windows of one file.

`monitors_peers.py <tool> <file> <most>` prints JSON: an alarm or none for each window, at most so
many; how long one check took, in seconds; the most memory of the process, in MB. The file has a
reference and windows of the same columns as arrays; of what is in categories the codes. Tools are
asked as the first page of their documentation does it, with their defaults.
"""

import json
import logging
import resource
import statistics
import sys
import time
import warnings

import numpy as np


def frame(table, levels, rows=slice(None)):
    """Return arrays as the table that a user would have."""
    import pandas as pd

    columns = {}
    for name, values in table.items():
        given = values[rows]
        if name in levels:
            given = np.where(np.isnan(given), None, np.char.add("k", given.astype(int).astype(str)))
        columns[name] = given
    return pd.DataFrame(columns)


def ours(reference, windows, levels):
    """Ask `drift.check`, which says itself what drifted."""
    from penguins.monitoring import drift
    from penguins.reference import sample
    from penguins.settings import Monitoring

    names = {name: tuple(map(str, range(levels[name]))) for name in levels}
    samples = [sample(name, names.get(name), values) for name, values in reference.items()]
    for window in windows:
        rows = len(next(iter(window.values())))
        yield {"": drift.check(samples, window, Monitoring(window=rows)).alarm}


def evidently(reference, windows, levels):
    """Ask the preset for the drift of a data set; and whether any column drifts."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    numbers = [name for name in reference if name not in levels]
    kinds = DataDefinition(numerical_columns=numbers, categorical_columns=list(levels))
    before = Dataset.from_pandas(frame(reference, levels), data_definition=kinds)
    for window in windows:
        after = Dataset.from_pandas(frame(window, levels), data_definition=kinds)
        found = Report([DataDriftPreset()]).run(after, before).dict()["metrics"]
        drifted = next(
            each["value"] for each in found if each["metric_name"].startswith("DriftedColumnsCount")
        )
        yield {"": drifted["share"] >= 0.5, "any column": drifted["count"] > 0}


def popmon(reference, windows, levels):
    """Ask for the traffic lights against an external reference: is any of them red?"""
    import pandas as pd
    import popmon as tool
    from histogrammar.dfinterface.make_histograms import make_histograms

    def dated(table, start, days):
        made = frame(table, levels)
        return made.assign(day=pd.Timestamp(start) + pd.to_timedelta(days, unit="D"))

    rows = len(next(iter(reference.values())))
    before = dated(reference, "2020-01-01", np.arange(rows) * 10 // rows)
    binned = make_histograms(
        before,
        time_axis="day",
        time_width="1D",
        time_offset="2020-01-01",
        features=[f"day:{name}" for name in reference],
    )
    days = np.repeat(np.arange(len(windows)), [len(next(iter(w.values()))) for w in windows])
    together = {name: np.concatenate([w[name] for w in windows]) for name in reference}
    after = dated(together, "2021-01-01", days)
    found = tool.df_stability_metrics(
        after, time_axis="day", reference_type="external", reference=binned
    )
    for red in found["alerts"]["_AGGREGATE_"]["n_red"]:
        yield {"": bool(red)}


def nannyml(reference, windows, levels):
    """Ask for univariate drift in chunks: does any column alert?"""
    import nannyml as tool
    import pandas as pd

    size = len(next(iter(windows[0].values())))
    names = list(reference)
    asked = tool.UnivariateDriftCalculator(column_names=names, chunk_size=size)
    asked.fit(frame(reference, levels))
    found = asked.calculate(pd.concat([frame(w, levels) for w in windows], ignore_index=True))
    table = found.filter(period="analysis").to_df()
    alerts = [column for column in table.columns if column[-1] == "alert"]
    for alarm in table[alerts].any(axis=1):
        yield {"": bool(alarm)}


def river(reference, windows, levels):
    """Feed one ADWIN a column, of numbers alone: does any see a change within the window?"""
    from river.drift import ADWIN

    numbers = [name for name in reference if name not in levels]
    for window in windows:
        alarm = False
        for name in numbers:
            detector = ADWIN()
            for value in reference[name][~np.isnan(reference[name])]:
                detector.update(value)
            for value in window[name][~np.isnan(window[name])]:
                detector.update(value)
                alarm = alarm or detector.drift_detected
        yield {"": alarm}


def prometheus(reference, windows, levels):
    """Evaluate the usual rule, on the mean of each column of numbers that the service exports.

    ``abs(sum_over_time / count_over_time - reference_mean) > 3 * reference_sd / sqrt(count)``
    """
    numbers = [name for name in reference if name not in levels]
    means = {name: np.nanmean(reference[name]) for name in numbers}
    deviations = {name: np.nanstd(reference[name]) for name in numbers}
    for window in windows:
        alarm = False
        for name in numbers:
            given = window[name][~np.isnan(window[name])]
            bound = 3 * deviations[name] / np.sqrt(max(len(given), 1))
            alarm = alarm or (len(given) > 0 and abs(given.mean() - means[name]) > bound)
        yield {"": bool(alarm)}


def losses_ours(reference, windows):
    """Ask the one-sided test on the loss of each event."""
    from drift_simulation import CLASSES
    from penguins.monitoring import performance
    from penguins.reference import LOSS, sample
    from penguins.settings import Monitoring

    known = sample(LOSS, None, reference["wrong"])
    for window in windows:
        found = performance.check(CLASSES, known, window["wrong"], None, Monitoring()).finding
        yield {"": bool(found and found.alarm)}


def losses_river(reference, windows):
    """Feed DDM, which river has for the errors of a classifier."""
    from river.drift.binary import DDM

    for window in windows:
        detector, alarm = DDM(), False
        for value in reference["wrong"]:
            detector.update(bool(value))
        for value in window["wrong"]:
            detector.update(bool(value))
            alarm = alarm or detector.drift_detected
        yield {"": alarm}


def losses_nannyml(reference, windows):
    """Ask CBPE, which estimates performance from the scores alone, for accuracy."""
    import nannyml as tool
    import pandas as pd

    def scored(table):
        said = (table["score"] >= 0.5).astype(int)
        truth = np.where(table["wrong"] > 0, 1 - said, said)
        return pd.DataFrame({"score": table["score"], "said": said, "truth": truth})

    asked = tool.CBPE(
        problem_type="classification_binary",
        y_pred_proba="score",
        y_pred="said",
        y_true="truth",
        metrics=["accuracy"],
        chunk_size=len(windows[0]["wrong"]),
    )
    asked.fit(scored(reference))
    found = asked.estimate(pd.concat([scored(window) for window in windows], ignore_index=True))
    for alarm in found.filter(period="analysis").to_df()[("accuracy", "alert")]:
        yield {"": bool(alarm)}


LOSSES = {"ours": losses_ours, "river": losses_river, "nannyml": losses_nannyml}
TOOLS = {
    "ours": ours,
    "evidently": evidently,
    "popmon": popmon,
    "nannyml": nannyml,
    "river": river,
    "prometheus": prometheus,
}


# These take all windows in one call.
AT_ONCE = ("popmon", "nannyml")


def main(tool, path, most):
    """Print what a tool says of each window."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    with np.load(path) as arrays:
        held = {name: arrays[name] for name in arrays.files}
    levels = {name[7:]: int(value) for name, value in held.items() if name.startswith("levels ")}
    reference = {name[4:]: value for name, value in held.items() if name.startswith("ref ")}
    count = min(int(held["windows"]), int(most))
    windows = [{name: held[f"{i} {name}"] for name in reference} for i in range(count)]
    is_loss = "wrong" in reference
    found, taken = [], []
    asked = LOSSES[tool](reference, windows) if is_loss else TOOLS[tool](reference, windows, levels)
    start = time.perf_counter()
    for alarms in asked:
        taken.append(time.perf_counter() - start)
        found.append(alarms)
        start = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    spent = sum(taken) / len(taken) if tool in AT_ONCE else statistics.median(taken)
    print(json.dumps({"alarms": found, "seconds": spent, "peak": peak}))


if __name__ == "__main__":
    main(*sys.argv[1:])
