from __future__ import annotations

import re

import pytest
from phasegate import PluginError
from phasegate.testing.author.names import LONGEST, Names, names_of


def test_package_and_entry_point_follow_from_the_distribution() -> None:
    assert names_of("phasegate-expert-choice") == Names(
        dist="phasegate-expert-choice", package="phasegate_expert_choice", entry="expert-choice"
    )
    assert names_of("lego2") == Names(dist="lego2", package="lego2", entry="lego2")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Phasegate_Lego", "use a-z, 0-9 and single hyphens, a letter first. Write 'phasegate-lego'."),
        ("phasegate--lego", "use a-z, 0-9 and single hyphens, a letter first. Write 'phasegate-lego'."),
        ("my.lego!", "use a-z, 0-9 and single hyphens, a letter first. Write 'my-lego'."),
        ("lego-", "use a-z, 0-9 and single hyphens, a letter first. Write 'lego'."),
        ("3d", "'3d' cannot name a plugin: use a-z, 0-9 and single hyphens, a letter first."),
        ("", "'' cannot name a plugin"),
        ("../lego", "'../lego' cannot name a plugin"),
        ("$(touch x)", "cannot name a plugin"),
        ("légo", "cannot name a plugin"),
        ("lego\n", "cannot name a plugin"),
        ("x" * (LONGEST + 1), f"has {LONGEST + 1} characters, and a plugin's name at most {LONGEST}"),
        ("phasegate", "'phasegate' is a name of the platform's own: choose another, such as 'phasegate-mine'."),
        ("local", "'local' is a name of the platform's own: choose another, such as 'phasegate-my-local'."),
        ("phasegate-builtin", "is a name of the platform's own"),
        ("tests", "is a name of the platform's own"),
        ("platform", "would hide what Python itself calls 'platform': write 'phasegate-platform'."),
        ("lambda", "would hide what Python itself calls 'lambda': write 'phasegate-lambda'."),
        ("torch", "'torch' would hide the package 'torch' that is installed here"),
    ],
)
def test_a_name_that_cannot_be_one_is_refused_with_what_could(name: str, why: str) -> None:
    with pytest.raises(PluginError, match=re.escape(why)):
        names_of(name)
