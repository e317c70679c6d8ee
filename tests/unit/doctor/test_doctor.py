"""What the checks are made of: complete tables, readings of odd output, the ends of a report."""

import json
import re
import string
import sys

import pytest

from tools.house import faults
from vllm.doctor import nvidia, report, torch_facts
from vllm.doctor.checks import hub, package, port, python, system, torch
from vllm.doctor.examine import CATALOGUE, Broken, examine, names
from vllm.doctor.line import TORCH_RANGE, Finding, Line, finding
from vllm.doctor.machine import Machine, Ran
from vllm.doctor.notes import in_chinese
from vllm.util.catalog import UnknownName


def words_of(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name}


@pytest.mark.parametrize("name", names())
def test_every_line_is_complete(name):
    for code, line in CATALOGUE.load(name).LINES.items():
        assert line.level in ("green", "yellow", "red"), code
        assert bool(line.mend) == (line.level != "green"), f"{name} {code}: a remedy for what is wrong, and only that"
        assert line.en != line.zh or line.en == "{system}" or line.en == "torch {version}{build}" or "{" in line.en
        # why: what one language tells, the other tells too; `x_zh` is the Chinese of x.
        assert {w.removesuffix("_zh") for w in words_of(line.zh)} <= words_of(line.en) | {"name"}


@pytest.mark.parametrize("lang", faults.FILES)
def test_the_page_says_what_doctor_says(lang):
    assert faults.FILES[lang].read_text("utf-8") == faults.page(lang), "python -m tools.house faults"
    assert not re.search(r"\{\w+\}|\| `\w*` \|", faults.page(lang)), "a remedy that is only a word needs an EXAMPLE"


def test_notes_behind_remedies_are_chinese_too():
    """Commands, names and addresses stay; an English sentence does not."""
    noted = [cell for row in faults.page("zh").splitlines() for cell in re.findall(r"`([^`]*   # [^`]*)`", row)]
    assert len(noted) >= 20
    for remedy in noted:
        note = remedy.partition("   # ")[2]
        assert re.search(r"[\u4e00-\u9fff]", note), remedy
        assert not re.search(r"\b(the|then|or|in a|is large|what|any|from|with|says)\b", note), remedy
    assert in_chinese("unset X") == "unset X"


def test_the_generation_is_last():
    assert names()[-1] == "generate"


def test_the_tested_range_is_the_one_of_the_package():
    from tools.house.source import ROOT

    assert f'"{TORCH_RANGE}"' in (ROOT / "pyproject.toml").read_text()
    assert f"torch>={'.'.join(map(str, torch.OLDEST))},<{'.'.join(map(str, torch.TOO_NEW))}" == TORCH_RANGE
    assert f'description = "{package._SUMMARY}' in (ROOT / "pyproject.toml").read_text()


def test_every_dependency_is_looked_for():
    import tomllib

    from tools.house.source import ROOT
    from vllm.doctor.checks import packages

    asked = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    wanted = {line.partition(";")[0].strip() for line in asked} - {f"{TORCH_RANGE}"}
    assert {*packages.NEEDED.values(), "llvmlite>=0.45"} == wanted


def test_a_gpu_line_is_yellow_where_the_cpu_was_chosen():
    line = Line("red", "a", "b", "c", gpu=True)
    assert finding("x", "y", line, {}, cpu_chosen=True).level == "yellow"
    assert finding("x", "y", line, {}, cpu_chosen=False).level == "red"
    assert finding("x", "y", Line("red", "a", "b", "c"), {}, cpu_chosen=True).level == "red"


def test_a_failing_check_is_our_fault_and_the_others_still_run(monkeypatch):
    def fails(machine):
        yield "fine", {"port": 1}
        raise RuntimeError("planted")

    monkeypatch.setattr(CATALOGUE.load("port"), "check", fails)
    found = list(examine(Machine(), ["port", "variables"]))
    assert isinstance(found[1], Broken) and "planted" in found[1].trace
    assert found[2].check == "variables" and report.exit_status(found) == 2
    assert "Doctor itself failed" in report.end(found, "en") and "planted" in report.lines(found[1], "en", False)
    assert json.loads(report.as_json(found, "en"))["faults"][0]["check"] == "port"


def test_an_unknown_check_names_the_nearest():
    with pytest.raises(UnknownName, match="torch"):
        list(examine(Machine(), ["torhc"]))


def test_a_red_line_makes_the_report_red():
    red, yellow = Finding("x", "y", "red", "E", "Z", "fix it"), Finding("x", "y", "yellow", "E", "Z", "fix it")
    assert report.exit_status([yellow]) == 0 and report.exit_status([yellow, red]) == 1
    assert report.lines(red, "en", False) == "red    x            E\n       > fix it"
    assert "Z" in report.lines(red, "zh", True) and "\033[31m" in report.lines(red, "zh", True)


def test_a_child_past_its_limit_ends_with_its_own_children(tmp_path):
    file = tmp_path / "alive"
    script = f"(sleep 1; touch {file}) & wait"
    assert Machine(limit=0.3).run(["sh", "-c", script]).status is None
    assert Machine().run(["sleep", "1.2"]).status == 0
    assert not file.exists()


def test_a_command_that_is_not_there():
    assert Machine().run(["/no/such/command"]).status == 127


@pytest.mark.parametrize(
    ("status", "out", "state"),
    [
        (None, "", "slow"),
        (-11, "", "killed"),
        (1, "", "broken"),
        (0, "nothing of ours", "broken"),
        (0, 'vllm-doctor-torch:{"missing": true}', "missing"),
        (0, 'noise\nvllm-doctor-torch:{"version": "2.12.1+cu130", "cuda": "13.0", "arches": ["sm_90"]}', "works"),
    ],
)
def test_what_the_probe_of_torch_says(status, out, state):
    torch_of_it = torch_facts.read(status, out, "last")
    assert torch_of_it.state == state
    if state == "works":
        assert torch_of_it.numbers == (2, 12) and torch_of_it.cuda_numbers == (13, 0)
    if state == "killed":
        assert torch_of_it.problem == "SIGSEGV"


def test_an_old_nvidia_smi_is_asked_again(monkeypatch):
    asked = []

    def run(command, limit):
        asked.append(command[1])
        if "compute_cap" in command[1]:
            return Ran(2, 'Field "compute_cap" is not a valid field to query.', "")
        return Ran(0, "0, Tesla K80, 470.82.01, 11441, 3\n", "")

    monkeypatch.setattr(nvidia.shutil, "which", lambda name: "/bin/nvidia-smi")
    found = nvidia.read(run)
    assert len(asked) == 2 and found.gpus[0].capability is None and found.gpus[0].driver_major == 470


@pytest.mark.parametrize(
    ("arches", "capability", "has"),
    [
        (("sm_80", "sm_90"), (8, 9), True),
        (("sm_80", "sm_90a"), (9, 0), True),
        (("sm_90",), (12, 0), False),
        (("sm_90", "compute_90"), (12, 0), True),
        (("sm_75", "sm_100"), (7, 0), False),
    ],
)
def test_code_for_a_gpu(arches, capability, has):
    assert torch._has_code(arches, capability) is has


def test_a_proxy_is_not_used_for_hosts_that_are_spared(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy", "ALL_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    monkeypatch.setenv("NO_PROXY", "localhost,.example.org")
    assert hub._proxy(hub._split("https://hub.example.org")) is None
    assert hub._proxy(hub._split("https://hub.example.com")) == "HTTPS_PROXY"
    assert hub._split("https://host:port") is None and hub._split("host") is None


@pytest.mark.parametrize(("version", "code"), [((3, 10, 1), "too-old"), ((3, 15, 0), "too-new"), ((3, 14, 2), "fine")])
def test_pythons_that_are_too_old_or_too_new(monkeypatch, version, code):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", version)
        said = [code for code, _ in python.check(Machine())]
    assert said[0] == code


def test_the_systems_own_python(monkeypatch, tmp_path):
    (tmp_path / "EXTERNALLY-MANAGED").touch()
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(python.sysconfig, "get_path", lambda name: str(tmp_path))
    assert "managed" in [code for code, _ in python.check(Machine())]


def test_other_systems_are_told_what_works(monkeypatch):
    monkeypatch.setattr(system.platform, "system", lambda: "Darwin")
    ((code, words),) = system.check(Machine())
    assert code == "untested" and "Darwin" in words["system"]


def test_a_port_that_nobody_may_take(monkeypatch):
    def refuse(number):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(port, "_bind", refuse)
    assert list(port.check(Machine(port=80))) == [("refused", {"port": 80, "problem": "Permission denied"})]
