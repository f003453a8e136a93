"""The image, read as text: no container engine is needed to see that it keeps its promises."""

import re

from tests.config_trees import ROOT
from tests.unit.infra.files import BUILD, FINAL, INFRA, of


def test_both_stages_start_from_one_pinned_image() -> None:
    images = {of(stage, "FROM")[0].split()[0] for stage in (BUILD, FINAL)}
    assert len(images) == 1
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-\w+", images.pop())


def test_the_image_runs_as_a_numbered_user_that_is_not_root() -> None:
    [user] = of(FINAL, "USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    after = [name for name, _ in FINAL[FINAL.index(("USER", user)) + 1 :]]
    assert not {"RUN", "COPY", "ADD"} & set(after)


def test_every_install_is_pinned_and_the_final_stage_builds_nothing() -> None:
    installs = [command for command in of(BUILD, "RUN") if "pip" in command]
    assert len(installs) == 2
    for command in installs:
        assert "-c constraints.txt" in command
        assert "--no-cache-dir" in command
    for command in of(FINAL, "RUN"):
        assert not re.search(r"\b(apt-get|apt|pip|gcc|make|curl|wget|git)\b", command)
    assert of(FINAL, "COPY") == ["--from=build /opt/refract /opt/refract"]
    assert not of(BUILD, "ADD") + of(FINAL, "ADD")


def test_all_that_is_copied_exists_and_may_enter_the_build() -> None:
    ignored = (INFRA / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    assert "*" in ignored
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    copied = {source for rest in of(BUILD, "COPY") for source in rest.split()[:-1]}
    assert copied == allowed
    assert [source for source in copied if not (ROOT / source).exists()] == []


def test_no_secret_is_built_in() -> None:
    named = [rest for stage in (BUILD, FINAL) for name in ("ENV", "ARG") for rest in of(stage, name)]
    assert not re.search(r"KEY|PASSWORD|TOKEN|SECRET", " ".join(named), re.IGNORECASE)


def test_health_is_what_the_app_says_and_the_command_is_ours() -> None:
    [check] = of(FINAL, "HEALTHCHECK")
    assert f"http://127.0.0.1:{of(FINAL, 'EXPOSE')[0]}/healthz" in check
    assert of(FINAL, "ENTRYPOINT") == ['["refract"]']
    assert of(FINAL, "CMD") == ['["run", "/etc/refract/config.yaml"]']
