"""Each alert fires when it should and rests at its border; asked of promtool, Prometheus' own engine."""

import pathlib
import re
import shutil
import subprocess

import yaml

from sources import ALERTS, ROOT, RUNBOOKS, alerts

PREFIX = "https://github.com/paperminder/ota/blob/main/docs/runbooks/"
TARGET = 'namespace="n",job="ota",instance="a"'
OTHER = 'namespace="n",job="ota",instance="b"'


def series(metric, values, labels="", target=TARGET):
    return {"series": f"{metric}{{{target}{',' if labels else ''}{labels}}}", "values": values}


def rollout(number, rollout_status="active", **counts):
    return [
        series("paperminder_rollout_printers", f"{count}x60", f'rollout="{number}",rollout_status="{rollout_status}",status="{status}"')
        for status, count in counts.items()
    ]


def updates(reason, values, status="failed"):
    return [series("paperminder_updates_total", values, f'status="{status}",reason="{reason}"')]


def refused(reason, values):
    return [series("paperminder_connections_refused_total", values, f'reason="{reason}"')]


def requests(status, values, route="/api/rollouts", target=TARGET):
    return [series("http_server_request_duration_seconds_count", values, f'status="{status}",method="GET",route="{route}"', target)]


def claims(fast, slow):
    """So many batches a minute within half a second, and so many more between one second and two and a half."""
    name = "paperminder_claim_duration_seconds_bucket"
    return [
        series(name, f"0+{fast}x60", 'le="0.5"'),
        series(name, f"0+{fast}x60", 'le="1.0"'),
        series(name, f"0+{fast + slow}x60", 'le="2.5"'),
        series(name, f"0+{fast + slow}x60", 'le="+Inf"'),
    ]


def pool(used, most):
    return [
        series("paperminder_database_connections", f"{used}x60", 'state="used"'),
        series("paperminder_database_connections", f"{most - used}x60", 'state="idle"'),
        series("paperminder_database_connections_max", f"{most}x60"),
    ]


def one(metric, values):
    return [series(metric, values)]


def garbage(outcome, values):
    return [series("paperminder_garbage_turns_total", values, f'outcome="{outcome}"')]


# A server that runs, in every case but where it is gone, and a fleet that is counted.
BARE = one("paperminder_build_info", "1x800") + one("up", "1x800")
ALIVE = BARE + [series("paperminder_fleet_measured_timestamp_seconds", "0+60x800", target=TARGET.replace('"a"', '"z"'))]
MEASURED = "paperminder_fleet_measured_timestamp_seconds"
SILENT = "paperminder_updates_silent"
ENGINE = "paperminder_engine_last_turn_timestamp_seconds"
PAUSED = "paperminder_rollouts_paused_by_rule"

# (alert, minute, does it fire, series): the border, on both sides. Samples come every minute, from minute 0 on.
CASES = [
    ("PaperMinderRolloutFailing", 10, True, ALIVE + rollout(7, confirmed=17, failed=3, pending=80)),
    ("PaperMinderRolloutFailing", 10, False, ALIVE + rollout(7, confirmed=18, failed=2, pending=80)),  # 10 % sharp
    ("PaperMinderRolloutFailing", 10, False, ALIVE + rollout(7, confirmed=0, failed=19)),  # too few
    ("PaperMinderRolloutFailing", 10, True, ALIVE + rollout(7, failed=20)),  # nobody was ever confirmed
    ("PaperMinderRolloutFailing", 10, False, ALIVE + rollout(7, confirmed=15, failed=1) + rollout(8, confirmed=0, failed=10)),
    ("PaperMinderRolloutFailing", 10, True, ALIVE + rollout(7, "completed", confirmed=17, failed=3)),
    # Somebody, or a rule, stopped it already.
    ("PaperMinderRolloutFailing", 10, False, ALIVE + rollout(7, "paused", confirmed=17, failed=3, pending=80)),
    ("PaperMinderRolloutFailing", 10, False, ALIVE
     + [one | {"values": "17x5 stale" if 'status="confirmed"' in one["series"] else "3x5 stale"} for one in rollout(7, confirmed=17, failed=3)]
     + [one | {"values": "_x5 " + one["values"]} for one in rollout(7, "paused", confirmed=17, failed=3)]),
    ("PaperMinderRollbacks", 35, True, ALIVE + updates("rolled_back", "0x10 1 2 3x60")),
    ("PaperMinderRollbacks", 35, False, ALIVE + updates("rolled_back", "0x10 1 2x60")),
    ("PaperMinderRollbacks", 35, False, ALIVE + updates("reported", "0x10 10x60")),
    # Among many that end well, a few are downloads that broke.
    ("PaperMinderRollbacks", 35, True, ALIVE + updates("rolled_back", "0x10 3x60") + updates("confirmed", "0x10 56x60", status="completed")),
    ("PaperMinderRollbacks", 35, False, ALIVE + updates("rolled_back", "0x10 3x60") + updates("confirmed", "0x10 58x60", status="completed")),
    ("PaperMinderRollbacks", 59, False, ALIVE + updates("rolled_back", "0x10 1 2 3x60")),  # long ago
    ("PaperMinderRolloutPausedByRule", 5, True, ALIVE + one(PAUSED, "0 0 1x60")),
    ("PaperMinderRolloutPausedByRule", 5, False, ALIVE + one(PAUSED, "1 1 0x60")),
    ("PaperMinderUpdatesStuck", 20, True, ALIVE + one(SILENT, "0x5 1x60")),
    ("PaperMinderUpdatesStuck", 14, False, ALIVE + one(SILENT, "0x5 1x60")),  # not for ten minutes yet
    ("PaperMinderUpdatesStuck", 20, False, ALIVE + one(SILENT, "0x60")),
    ("PaperMinderUpdatesTimingOut", 61, True, ALIVE + updates("timeout", "0x5 10x80") + updates("confirmed", "0x5 80x80", "completed")),
    ("PaperMinderUpdatesTimingOut", 61, False, ALIVE + updates("timeout", "0x5 10x80") + updates("confirmed", "0x5 91x80", "completed")),
    ("PaperMinderUpdatesTimingOut", 61, False, ALIVE + updates("timeout", "0x5 9x80")),
    ("PaperMinderPrintersOffline", 40, True, ALIVE + one("paperminder_printers_offline", "11x60") + one("paperminder_printers_known", "100x60")),
    ("PaperMinderPrintersOffline", 40, False, ALIVE + one("paperminder_printers_offline", "10x60") + one("paperminder_printers_known", "100x60")),
    ("PaperMinderPrintersOffline", 40, False, ALIVE + one("paperminder_printers_offline", "9x60") + one("paperminder_printers_known", "20x60")),
    ("PaperMinderPrintersOffline", 25, False, ALIVE + one("paperminder_printers_offline", "11x60") + one("paperminder_printers_known", "100x60")),
    ("PaperMinderConnectionsLost", 46, True, ALIVE + one("paperminder_printers_connected", "100x39 69x60")),
    ("PaperMinderConnectionsLost", 46, False, ALIVE + one("paperminder_printers_connected", "100x39 70x60")),
    ("PaperMinderConnectionsLost", 46, False, ALIVE + one("paperminder_printers_connected", "49x39 0x60")),
    # A rolling update moves them to another replica.
    ("PaperMinderConnectionsLost", 46, False, ALIVE + one("paperminder_printers_connected", "100x39 0x60")
     + [series("paperminder_printers_connected", "0x39 100x60", target=OTHER)]),
    ("PaperMinderRefusals", 30, True, ALIVE + refused("full", "0+31x60")),
    ("PaperMinderRefusals", 30, False, ALIVE + refused("full", "0+30x60")),
    ("PaperMinderRefusals", 30, False, ALIVE + refused("shutting_down", "0+600x60") + refused("silent", "0+600x60")),
    ("PaperMinderWrongKeys", 30, True, ALIVE + refused("printer_key", "0+61x60")),
    ("PaperMinderWrongKeys", 30, False, ALIVE + refused("printer_key", "0+60x60")),
    ("PaperMinderAbsent", 20, True, one("paperminder_build_info", "1x5 stale") + one("up", "1x5 stale")),
    ("PaperMinderAbsent", 20, True, []),  # never seen
    ("PaperMinderAbsent", 20, False, ALIVE),
    # Of two installations one is gone.
    ("PaperMinderAbsent", 20, True, ALIVE + [series("paperminder_build_info", "1x5 stale", target='namespace="m",job="ota",instance="c"')]),
    # One replica of two is gone for good, as after scaling down.
    ("PaperMinderAbsent", 20, False, ALIVE + [series("paperminder_build_info", "1x5 stale", target=OTHER)]),
    ("PaperMinderReplicaDown", 20, True, ALIVE + [series("up", "1x5 0x60", target=OTHER)]),
    ("PaperMinderReplicaDown", 10, False, ALIVE + [series("up", "1x5 0x60", target=OTHER)]),
    ("PaperMinderReplicaDown", 20, False, ALIVE + [series("up", "0x60", target='namespace="n",job="another",instance="c"')]),
    ("PaperMinderMigrationsPending", 10, True, ALIVE + one("paperminder_migrations_pending", "1x60")),
    # A new replica waits while old ones serve, which know of none.
    ("PaperMinderMigrationsPending", 10, True, ALIVE + one("paperminder_migrations_pending", "0x60")
     + [series("up", "1x60", target=OTHER), series("paperminder_build_info", "1x60", target=OTHER), series("paperminder_migrations_pending", "2x60", target=OTHER)]),
    ("PaperMinderMigrationsPending", 10, False, ALIVE + one("paperminder_migrations_pending", "0x60")),
    ("PaperMinderMigrationsPending", 4, False, ALIVE + one("paperminder_migrations_pending", "1x60")),
    # The clock of these tests begins at 0 and ticks in seconds.
    ("PaperMinderEngineNotTicking", 20, True, ALIVE + one(ENGINE, "-181+60x60")),
    ("PaperMinderEngineNotTicking", 20, False, ALIVE + one(ENGINE, "-180+60x60")),
    ("PaperMinderEngineNotTicking", 30, False, ALIVE + one(ENGINE, "0+60x60")),
    ("PaperMinderEngineErrors", 30, True, ALIVE + one("paperminder_engine_errors_total", "0+0.6x60")),
    ("PaperMinderEngineErrors", 30, False, ALIVE + one("paperminder_engine_errors_total", "0+0.5x60")),
    ("PaperMinderClaimsSlow", 30, True, ALIVE + claims(fast=94, slow=6)),
    ("PaperMinderClaimsSlow", 30, False, ALIVE + claims(fast=95, slow=5)),
    ("PaperMinderPoolSaturated", 20, True, ALIVE + pool(19, 20)),
    ("PaperMinderPoolSaturated", 20, False, ALIVE + pool(18, 20)),
    ("PaperMinderServerErrors", 30, True, ALIVE + requests(503, "0+6x60") + requests(200, "0+94x60")),
    ("PaperMinderServerErrors", 30, False, ALIVE + requests(503, "0+5x60") + requests(200, "0+95x60")),
    ("PaperMinderServerErrors", 30, False, ALIVE + requests(500, "0+0.9x60")),  # nine in ten minutes
    ("PaperMinderServerErrors", 30, False, ALIVE + requests(503, "0+600x60", "/ws/{user_id}") + requests(200, "0+94x60")),
    ("PaperMinderServerErrors", 30, False, ALIVE + requests(500, "0+99x60", target='namespace="n",job="another",instance="c"')),
    ("PaperMinderGarbageFailing", 361, True, ALIVE + garbage("failed", "0x5 1x60 2x400") + garbage("elsewhere", "0+1x400")),
    ("PaperMinderGarbageFailing", 361, False, ALIVE + garbage("failed", "0x5 1x400")),
    ("PaperMinderGarbageFailing", 361, False, ALIVE + garbage("failed", "0x5 1x60 2x400") + garbage("done", "0x300 1x200")),
    ("PaperMinderFleetNotMeasured", 30, True, BARE + one(MEASURED, "-601+60x60")),
    ("PaperMinderFleetNotMeasured", 30, False, BARE + one(MEASURED, "-600+60x60")),
    # Another replica takes over.
    ("PaperMinderFleetNotMeasured", 30, False, BARE + one(MEASURED, "0+60x5 stale")
     + [series(MEASURED, "_x4 300+60x60", target=OTHER)]),
    # Nobody takes over; nobody ever measured; a server that has just begun.
    ("PaperMinderFleetNotMeasured", 30, True, BARE + one(MEASURED, "0+60x5 stale")),
    ("PaperMinderFleetNotMeasured", 30, True, BARE),
    ("PaperMinderFleetNotMeasured", 4, False, BARE),
]


def promtool(*arguments):
    assert shutil.which("promtool"), "promtool is not installed: run 'scripts/setup test'"
    return subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=120)


def test_promtool_reads_the_rules():
    done = promtool("check", "rules", str(ALERTS))
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(alerts())} rules found" in done.stdout


def apart(number, world):
    """The case's series under jobs of its own, so that all cases are one run."""
    return [one | {"series": re.sub(r'job="(\w+)"', rf'job="\1-{number}"', one["series"])} for one in world]


def question(name, minute, fires, number):
    """Of its jobs exactly this alert fires, or none: an alert of a neighbour is a fault too."""
    return {
        "expr": f'group by (alertname) (ALERTS{{alertstate="firing",job=~".+-{number}"}})',
        "eval_time": f"{minute}m",
        "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}] if fires else [],
    }


def write(folder, tests):
    path = folder / "tests.yaml"
    body = {"rule_files": [str(ALERTS)], "evaluation_interval": "1m", "tests": tests}
    path.write_text(yaml.safe_dump(body, sort_keys=False, width=1000))
    return str(path)


def test_alerts_fire_past_their_border_and_not_before(tmp_path):
    cases = [(number, case) for number, case in enumerate(CASES) if case[3]]
    tests = [
        {
            "interval": "1m",
            "input_series": [one for number, case in cases for one in apart(number, case[3])],
            "promql_expr_test": [question(*case[:3], number) for number, case in cases],
        },
        {
            "interval": "1m",
            "input_series": [],
            "promql_expr_test": [
                {
                    "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                    "eval_time": f"{minute}m",
                    "exp_samples": [{"labels": f'{{alertname="{name}"}}', "value": 1}],
                }
                for name, minute, _, world in CASES
                if not world
            ],
        },
    ]
    done = promtool("test", "rules", write(tmp_path, tests))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_both_sides_of_its_border():
    names = {rule["alert"] for _, rule in alerts()}
    assert {name for name, _, fires, _ in CASES if fires} == names
    assert {name for name, _, fires, _ in CASES if not fires} == names


def test_the_texts_of_alerts_are_filled_in(tmp_path):
    firing = [case for case in CASES if case[2]]
    # promtool prints what it got when it expected nothing.
    tests = [
        {
            "interval": "1m",
            "input_series": world,
            "alert_rule_test": [{"alertname": name, "eval_time": f"{minute}m", "exp_alerts": []}],
        }
        for name, minute, _, world in firing
    ]
    done = promtool("test", "rules", write(tmp_path, tests))
    said = done.stdout + done.stderr
    assert done.returncode == 1 and said.count("got:") == len(firing), said
    for fault in ("error expanding", "<no value>", "%!", "NaN", "{{"):
        assert fault not in said, said


def test_alerts_say_what_whoever_is_on_call_needs():
    names = [rule["alert"] for _, rule in alerts()]
    assert len(set(names)) == len(names)
    for _, rule in alerts():
        name, notes = rule["alert"], rule["annotations"]
        assert re.fullmatch(r"PaperMinder[A-Z][A-Za-z]+", name)
        assert rule["labels"]["severity"] in ("critical", "warning"), name
        assert set(notes) == {"summary", "description", "runbook_url"}, name
        assert notes["runbook_url"] == f"{PREFIX}{name}.md", name
        # As a page on a telephone; what is to be filled in does not count.
        assert len(re.sub(r"\{\{.*?\}\}", "", notes["summary"])) < 80 and not notes["summary"].endswith("."), name
        assert notes["description"].strip().endswith("."), name


def test_every_alert_has_its_page_and_every_page_its_alert():
    pages = {path.stem for path in RUNBOOKS.glob("*.md")} - {"README"}
    assert pages == {rule["alert"] for _, rule in alerts()}


def test_rules_name_no_installation():
    text = pathlib.Path(ALERTS).read_text()
    assert not re.search(r'(job|instance|namespace|pod)\s*(=|=~)\s*"', text)
    assert str(ROOT) not in text
