"""Faults that are sown into a copy: each is caught by the test named beside it."""

import os
import re
import subprocess
import sys

import pytest
from conftest import copy_kit, copy_project

TEMPLATE = "{{cookiecutter.project}}"

KIT_FAULTS = {
    "a permission is too wide": (
        f"{TEMPLATE}/.github/workflows/ci.yml",
        "      contents: read # checkout\n",
        "      contents: write\n",
        "test_static.py::test_permissions[template]",
    ),
    "an action is not pinned": (
        f"{TEMPLATE}/.github/workflows/ci.yml",
        "actions/checkout@3d3c42e5aac5ba805825da76410c181273ba90b1 #",
        "actions/checkout@v7 #",
        "test_static.py::test_pins",
    ),
    "a branch is deployed": (
        f"{TEMPLATE}/.github/workflows/deploy.yml",
        "    if: github.ref == 'refs/heads/main' #",
        "    #",
        "test_static.py::test_order",
    ),
    "the gate is skipped after a failure": (
        f"{TEMPLATE}/.github/workflows/ci.yml",
        "    if: always()\n",
        "",
        "test_static.py::test_gate[template]",
    ),
    "the hook ignores options": (
        "hooks/post_gen_project.py",
        "kept = values[answers[option]]",
        "kept = sum(values.values(), [])",
        "test_files.py::test_files_of_every_option_value[quality=ruff]",
    ),
    "the hook places the wrong lock": (
        "hooks/post_gen_project.py",
        "f\"{answers['manager']}-{answers['quality']}\"",
        "f\"{answers['manager']}-black\"",
        "test_locks.py::test_poetry_locks_are_fresh[ruff]",
    ),
    "the hook refuses nothing": (
        "hooks/pre_gen_project.py",
        "return 1 if found else 0",
        "return 0",
        "test_hooks.py::test_a_refusal_leaves_nothing_behind",
    ),
    "a requirement loses its hashes": (
        f"{TEMPLATE}/.locks/venv-ruff/requirements.txt",
        " \\\n    --hash=sha256:",
        "\n# --hash=sha256:",
        "test_locks.py::test_every_requirement_is_pinned_and_hashed[requirements.txt-ruff]",
    ),
    "a dependency moves without its lock": (
        f"{TEMPLATE}/pyproject.toml",
        '"numpy>=2.4,<3"',
        '"numpy>=2.5,<3"',
        "test_locks.py::test_requirements_are_fresh[requirements.txt-ruff]",
    ),
    "poetry.lock is of another pyproject.toml": (
        f"{TEMPLATE}/.locks/poetry-black/poetry.lock",
        'content-hash = "',
        'content-hash = "0',
        "test_locks.py::test_poetry_locks_are_fresh[black]",
    ),
    "a file that looks binary is copied unrendered": (
        f"{TEMPLATE}/Makefile",
        "IMAGE ?=",
        "PACKAGE_IMAGE ?=",
        "test_rendered.py::test_no_jinja_is_left[venv-ruff-ssh]",
    ),
    "free text is not quoted": (
        f"{TEMPLATE}/pyproject.toml",
        "{{ cookiecutter.__description_quoted }}",
        '"{{ cookiecutter.description }}"',
        "test_rendered.py::test_everything_parses[poetry-black-ssh]",
    ),
    "the health check is removed": (
        f"{TEMPLATE}/Dockerfile",
        "HEALTHCHECK ",
        "# HEALTHCHECK ",
        "test_rendered.py::test_what_the_image_promises[poetry-black-ssh]",
    ),
    "the image runs as root": (
        f"{TEMPLATE}/Dockerfile",
        "USER 10001:10001\n",
        "USER root\n",
        "test_rendered.py::test_what_the_image_promises[poetry-black-ssh]",
    ),
    "production does not wait for staging": (
        f"{TEMPLATE}/.github/workflows/deploy.yml",
        "    if: ${{ !cancelled() && needs.staging.result == 'success' }}\n",
        "    if: ${{ !cancelled() }}\n",
        "test_static.py::test_order",
    ),
    "a secret goes on a command line": (
        f"{TEMPLATE}/.github/repository.py",
        "return self.run(what, words, value, value if",
        'return self.run(what, [*words, "--body", value], None, value if',
        "test_github.py::test_secrets_stay_secret[real]",
    ),
    "a dry run changes something": (
        f"{TEMPLATE}/.github/repository.py",
        "if self.dry:",
        'if self.dry and "--input" in words:',
        "test_github.py::test_a_dry_run_changes_nothing",
    ),
    "a job that failed cannot run again": (
        f"{TEMPLATE}/.github/workflows/deploy.yml",
        "          overwrite: true\n",
        "",
        "test_static.py::test_jobs_can_run_again[template]",
    ),
    "a page sets a secret where no workflow looks": (
        f"{TEMPLATE}/docs/runbooks/rotate-secrets.md",
        "REGISTRY_PASSWORD --env registry",
        "REGISTRY_PASSWORD",
        "test_github.py::test_what_the_pages_set[none]",
    ),
    "an issue is closed while it lasts": (
        f"{TEMPLATE}/.github/monitor.sh",
        '"$status" = steady',
        '"$status" != steady',
        "test_monitoring.py::test_an_issue_is_closed_when_it_is_over",
    ),
    "nobody looks at what compose serves": (
        f"{TEMPLATE}/compose.yaml",
        "  monitor:\n    profiles: [monitoring]\n",
        "  monitor:\n    profiles: [mlflow]\n",
        "test_alerts.py::test_compose_watches_the_service",
    ),
    "rows of clients go to a public repository": (
        f"{TEMPLATE}/.github/retrain.sh",
        "[[ ${PRIVATE:-} == true && -s proposal/retrain.patch ]] || rm",
        "[[ ${PRIVATE:-} != false && -s proposal/retrain.patch ]] || rm",
        "test_retrain.py::test_without_an_answer_a_repository_is_public",
    ),
}

PROJECT_FAULTS = {
    "a setting is ignored": (
        "src/penguins/preprocessing.py",
        'scale = SCALERS[settings.scale]() if settings.scale != "none" else "passthrough"',
        'scale = "passthrough"',
        "test_preprocessing.py::test_every_step_at_work",
    ),
    "data that break the contract pass": (
        "src/penguins/stages.py",
        "if found := violations.check(frame, known):",
        "if found := []:",
        "test_stages.py::test_contract_is_kept_or_explained",
    ),
    "an altered bundle is loaded": (
        "src/penguins/bundle.py",
        "if sha256(path / name) != sealed:",
        "if not sha256(path / name):",
        "test_bundle.py::test_altered_file[model.onnx]",
    ),
    "any type is trusted": (
        "src/penguins/bundle.py",
        "if unknown := sorted(set(skops.io.get_untrusted_types(data=stored)) - TRUSTED):",
        "if unknown := []:",
        "test_bundle.py::test_untrusted_types_are_neither_written_nor_read",
    ),
    "the body limit is not kept": (
        "src/penguins/serving/bodies.py",
        "            if len(body) > limit:\n",
        "            if len(body) < 0:\n",
        "test_serving_routes.py::test_body_limit",
    ),
    "a library tells of models": (
        "src/penguins/__init__.py",
        '"ORT_DISABLE_TELEMETRY", "1"',
        '"ORT_DISABLE_TELEMETRY_", "1"',
        "test_plan.py::test_nobody_is_told_of_models",
    ),
    "two stages are swapped": (
        "src/penguins/stages.py",
        '    "prepare": prepare,\n    "train": train,\n',
        '    "train": train,\n    "prepare": prepare,\n',
        "test_road.py",
    ),
    "ready without a model": (
        "src/penguins/serving/routes.py",
        "served, events = slot.require(), None",
        "served, events = slot.served, None",
        "test_serving_slot.py::test_without_a_bundle_there_is_no_answer",
    ),
    "an answer does not wait for its event": (
        "src/penguins/serving/batching.py",
        "        await self._record(calls)\n",
        "        asyncio.create_task(self._record(calls))\n",
        "test_serving_batching.py::test_an_answer_waits_for_its_event",
    ),
    "an answer is two packets": (
        "src/penguins/serving/server.py",
        "            http=Protocol,\n",
        "",
        "test_serving_server.py::test_an_answer_is_one_packet",
    ),
    "the last words of a connection are lost": (
        "src/penguins/serving/transport.py",
        "        self._flush()\n        self._transport.close()\n",
        "        self._transport.close()\n",
        "test_serving_transport.py::test_closing_loses_nothing",
    ),
    "ingestion competes with the service": (
        "src/penguins/ingestion.py",
        "stdin=subprocess.PIPE, process_group=0",
        "stdin=subprocess.PIPE, start_new_session=True",
        "test_ingestion.py::test_the_service_has_its_events_ingested",
    ),
    "two threads count": (
        "src/penguins/serving/batching.py",
        "timed = await to_thread.run_sync(_timed, call.served, [call], limiter=self._threads)\n"
        "        self._count(call.served, *timed)",
        "await to_thread.run_sync(\n"
        "            lambda: self._count(call.served, *_timed(call.served, [call]))\n"
        "        )",
        "test_serving_batching.py::test_numbers_are_counted_in_one_thread",
    ),
    "an event is read without its checksum": (
        "src/penguins/events.py",
        "if crc32(payload) != checksum:",
        "if crc32(payload) < 0:",
        "test_events.py::test_an_altered_byte_ends_the_reading",
    ),
    "events and their place are not stored together": (
        "src/penguins/ingestion.py",
        "    with store.writing() as connection:\n        try:\n            with",
        "    with store.writing() as connection:\n"
        "        connection.execute(place)\n        connection.commit()\n"
        "    with store.writing() as connection:\n        try:\n            with",
        "test_ingestion.py::test_a_failure_at_any_moment_stores_nothing_twice",
    ),
    "a version is served unproven": (
        "src/penguins/serving/served.py",
        "    prove(predictor)\n",
        "",
        "test_serving_slot.py::test_what_is_broken_is_refused",
    ),
    "a rollback holds nothing": (
        "src/penguins/serving/slot.py",
        "            self.holds.add(self.served.version)\n"
        "            self._held |= {self.served.version}\n",
        "",
        "test_serving_slot.py::test_workers_roll_back_together",
    ),
    "any key opens": (
        "src/penguins/serving/keys.py",
        "return self._names.get(hashlib.sha256(key.strip()).hexdigest())",
        "return key.decode()",
        "test_serving_keys.py::test_keys_rotate_without_restart",
    ),
    "the front answers what the contract refuses": (
        "src/penguins/serving/rows.py",
        "    if value is not None and not value.is_integer():\n",
        "    if value is None:\n",
        "test_serving_routes.py::test_wrong_values_are_named",
    ),
    "an equal model is promoted": (
        "src/penguins/gate.py",
        "better = found.low > settings.margin",
        "better = found.high > settings.margin",
        "test_gate.py::test_the_margin_is_beaten_with_confidence",
    ),
    "rows that the champion knows count": (
        "src/penguins/fingerprints.py",
        "return frame[~np.isin(fingerprints(known), seen)]",
        "return frame[np.isin(fingerprints(known), fingerprints(known))]",
        "test_release.py::test_rows_of_the_training_are_left_out",
    ),
    "a graph is admitted unproven": (
        "src/penguins/compilation.py",
        '_refuse("differs", worst > TOLERANCE, kinds, float(worst.max()))',
        '_refuse("differs", worst > np.inf, kinds, float(worst.max()))',
        "test_compilation.py::test_a_difference_is_refused",
    ),
    "a model has other bytes each time": (
        "src/penguins/bundle.py",
        "stored = canonical(",
        "stored = (",
        "test_bundle.py::test_the_same_training_gives_the_same_bytes",
    ),
    "rejected rows vanish": (
        "src/penguins/batch.py",
        "rejected.write(done.rejected)",
        "pass",
        "test_batch.py::test_rejected_rows_are_set_aside",
    ),
    "a search forgets its trials": (
        "src/penguins/search.py",
        "kept.add_trial(_told(",
        "(_told(",
        "test_search.py::test_interrupted_and_run_again",
    ),
    "probabilities in the order of the fold": (
        "src/penguins/inference.py",
        "probabilities[:, plan.classes] =",
        "probabilities[:, plan.classes[::-1]] =",
        "test_training.py::test_missing_class_in_training_rows",
    ),
    "any version passes the smoke test": (
        "src/penguins/smoke.py",
        '["version"]) != expected:',
        '["version"]) != version:',
        "test_smoke.py::test_another_version_is_named",
    ),
    "a service without a contract passes the smoke test": (
        "src/penguins/smoke.py",
        "if status != expected:",
        "if status >= 500:",
        "test_smoke.py::test_what_accepts_anything_is_refused",
    ),
    "a column's name becomes a link": (
        "src/penguins/markup.py",
        '.replace("[", "&#91;")',
        "",
        "test_markup.py::test_text",
    ),
    "a new setting forgets a reviewed contract": (
        "src/penguins/stages.py",
        "dict.fromkeys(now) | known.agreed == now",
        "known.agreed == now",
        "test_stages.py::test_a_contract_outlives_a_new_setting",
    ),
    "a new truth decides nothing": (
        "src/penguins/packaging.py",
        "    if known := feedback.read(agreed):\n        frame, held",
        "    if (known := feedback.read(agreed)) and not known:\n        frame, held",
        "test_feedback.py::test_the_pipeline_follows",
    ),
    "too few truths decide": (
        "src/penguins/release.py",
        "undecided = rows < least",
        "undecided = False",
        "test_retraining.py::test_too_few_truths_are_for_a_person",
    ),
    "a champion that errs more stays": (
        "src/penguins/probation.py",
        "worse = found is not None and found.alarm",
        "worse = False",
        "test_retraining.py::test_a_champion_that_errs_more_is_taken_back",
    ),
    "a refused challenger ends a probation": (
        "src/penguins/probation.py",
        "swap = announced(connection, champion)",
        'swap = checks.actions(connection, SWAP)[0]["detail"]',
        "test_retraining.py::test_a_challenger_that_is_refused_ends_no_probation",
    ),
    "nobody deploys what was promoted before a kill": (
        "src/penguins/retraining.py",
        "return None if champion in numbers else attempt",
        "return None",
        "test_retraining.py::test_after_a_kill_the_next_call_goes_on[_finish]",
    ),
    "groups name whom rows are about": (
        "src/penguins/monitoring/monitor.py",
        " if column.name in names]",
        "]",
        "test_monitor.py::test_groups_in_which_it_errs",
    ),
    "nobody deploys what a monitor took back": (
        "src/penguins/retraining.py",
        "if not why and (taken_back := probation.taken_back(settings)):",
        "if taken_back := probation.judge(settings):",
        "test_retraining.py::test_who_retrains_hears_of_what_a_monitor_took_back",
    ),
    "the gate is asked before the truths came": (
        "src/penguins/retraining.py",
        "if len(fresh) >= least:",
        "if len(fresh) >= 0:",
        "test_retraining.py::test_a_shadow_waits_for_its_truths",
    ),
    "a short window has too few truths for ever": (
        "src/penguins/monitoring/performance.py",
        "return max(settings.window, settings.labels)",
        "return settings.window",
        "test_monitor.py::test_a_window_of_fewer_events_than_a_verdict_needs",
    ),
    "refused rows are tried again and again": (
        "src/penguins/retraining.py",
        "_source(settings) not in known",
        "_source(settings) != known[0]",
        "test_retraining.py::test_rows_that_were_tried_are_no_reason_again",
    ),
    "a refused dispatch is never asked for again": (
        "src/penguins/dispatch.py",
        "checks.release(store, reason.key)",
        "pass",
        "test_dispatch.py::test_a_refusal_gives_the_claim_back",
    ),
    "a retraining by hand starts no cooldown": (
        "src/penguins/dispatch.py",
        'STARTED = ("dispatch", "retrain")',
        'STARTED = ("dispatch",)',
        "test_dispatch.py::test_a_retraining_by_hand_counts",
    ),
    "a store that hangs is up": (
        "src/penguins/serving/gauges.py",
        "up = self._up and not (reader and reader.is_alive())",
        "up = self._up",
        "test_serving_gauges.py::test_a_store_that_hangs_keeps_nobody",
    ),
    "every window is an alarm in a row": (
        "src/penguins/serving/gauges.py",
        "checks.alarms(windows)",
        "len(windows)",
        "test_serving_gauges.py::test_what_the_monitor_found_is_told",
    ),
    "two monitors keep the same window": (
        "src/penguins/checks.py",
        ".where(same)) != after",
        ".where(same)) == -5",
        "test_monitor.py::test_two_monitors_at_once",
    ),
    "an event is in two windows": (
        "src/penguins/monitoring/windows.py",
        "place > _literal(after)",
        "place >= _literal(after)",
        "test_monitor.py::test_windows_go_on_where_they_ended",
    ),
    "a clock that lags far behind is not told": (
        "src/penguins/monitoring/monitor.py",
        "RECOUNTED = 20",
        "RECOUNTED = 1",
        "test_monitor.py::test_a_clock_that_lags",
    ),
    "who is overtaken says that it looked": (
        "src/penguins/monitoring/monitor.py",
        "if not found.overtaken:",
        "if found:",
        "test_monitor.py::test_who_is_overtaken_leaves_no_heartbeat",
    ),
    "the largest drift is none": (
        "src/penguins/monitoring/drift.py",
        "1.0 if p is None else p",
        "p or 1.0",
        "test_drift.py::test_the_largest_drift_is_an_alarm",
    ),
    "every column has a level of its own": (
        "src/penguins/monitoring/drift.py",
        "outcome.p * tests",
        "outcome.p",
        "test_drift.py::test_chance_is_no_drift",
    ),
    "a small drift takes too long": (
        "src/penguins/monitoring/drift.py",
        "np.sqrt(variance / size)",
        "np.sqrt(2 * variance / size)",
        "test_drift.py::test_a_small_shift_is_confirmed_in_time",
    ),
    "chance is degradation": (
        "src/penguins/monitoring/performance.py",
        "share = (values.sum() + 1) / (len(values) + 2)",
        "share = values.mean()",
        "test_performance.py::test_chance_is_no_degradation",
    ),
    "an episode is told with each window": (
        "src/penguins/checks.py",
        "(table.id > calm.scalar_subquery())",
        "(table.id > 0)",
        "test_monitoring_alerts.py::test_an_episode_is_told_when_it_begins_and_when_it_ends",
    ),
    "an alert that did not arrive is not sent again": (
        "src/penguins/monitoring/alerts.py",
        "checks.release(store, key)",
        "pass",
        "test_monitoring_alerts.py::test_a_channel_that_fails_is_tried_again",
    ),
    "a report names somebody": (
        "src/penguins/monitoring/page.py",
        " if each != settings.events.entity",
        "",
        "test_monitoring_report.py::test_examples_show_the_change_and_nobody",
    ),
    "an unknown value names somebody": (
        "src/penguins/monitoring/page.py",
        " or finding.column == settings.events.entity",
        "",
        "test_monitoring_report.py::test_what_clients_sent_leaves_on_the_page_alone[owner]",
    ),
}


def sow(folder, path, old, new):
    """Put a fault into a file; the words that it replaces have to be there."""
    text = (folder / path).read_text()
    assert old in text, f"{path} has changed: the fault is not about anything any more"
    (folder / path).write_text(text.replace(old, new, 1))


def failures(folder, python, test, **extra):
    """Run one test of a copy and return how many failed; it must run, not merely break."""
    run = subprocess.run(
        [python, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{test}"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if "PYTEST" not in name} | extra,
        capture_output=True,
        text=True,
    )
    assert run.returncode in (0, 1), run.stdout + run.stderr
    found = re.search(r"(\d+) failed", run.stdout.splitlines()[-1])
    return int(found[1]) if found else 0


@pytest.mark.parametrize("fault", KIT_FAULTS)
def test_faults_in_the_kit_are_caught(tmp_path, fault):
    """The named test of the kit turns red."""
    path, old, new, test = KIT_FAULTS[fault]
    kit = copy_kit(tmp_path / "kit")
    sow(kit, path, old, new)
    assert 1 == failures(kit, sys.executable, test)


@pytest.mark.parametrize("fault", PROJECT_FAULTS)
def test_faults_in_a_project_are_caught(tmp_path, default_project, fault):
    """The named test of the generated project turns red."""
    path, old, new, test = PROJECT_FAULTS[fault]
    project = copy_project(default_project, tmp_path / "penguins")
    python = default_project / ".venv/bin/python"
    sow(project, path, old, new)
    assert 1 == failures(project, python, test, PYTHONPATH=str(project / "src"))
