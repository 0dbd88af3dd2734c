from __future__ import annotations

from typing import Any

import pytest
from phasegate.registry.errors import PluginError
from phasegate.registry.plugins import Plugins

HEAD = "import functools\nfrom phasegate import *\n"


def refusal(install_plugin: Any, source: str) -> str:
    install_plugin("phasegate-bad", HEAD + source)
    with pytest.raises(PluginError) as caught:
        Plugins.load(["bad"])
    return str(caught.value)


def broken(install_plugin: Any, source: str) -> str:
    """Return the rule that the plugin breaks, without the words common to all."""
    text = refusal(install_plugin, source)
    prefix = "phasegate-bad:bad 1.0 is not a valid plugin: "
    assert text.startswith(prefix)
    return text.removeprefix(prefix)


def test_an_import_error_says_whose_why_and_what_to_do(install_plugin: Any) -> None:
    assert refusal(install_plugin, "import a_module_that_is_not_there") == (
        "phasegate-bad:bad 1.0 failed to import: ModuleNotFoundError: No module named 'a_module_that_is_not_there'."
        " Run without it (drop it from `plugins`) or repair it: pip install --force-reinstall phasegate-bad"
    )


@pytest.mark.parametrize("source", ["raise ValueError('two\\nlines')", "import sys; sys.exit(0)", "1/0"])
def test_whatever_ends_an_import_becomes_one_line(install_plugin: Any, source: str) -> None:
    text = refusal(install_plugin, source)
    assert text.startswith("phasegate-bad:bad 1.0 failed to import: ")
    assert "\n" not in text


def test_a_misspelt_hook_is_refused_with_the_nearest(install_plugin: Any) -> None:
    source = "@hookimpl\ndef phasegate_onstep(ctx): ..."
    assert broken(install_plugin, source) == "there is no hook 'phasegate_onstep'. Did you mean 'phasegate_on_step'?"


def test_a_misspelt_hook_is_refused_even_when_marked_optional(install_plugin: Any) -> None:
    source = "@hookimpl(optionalhook=True)\ndef phasegate_onstep(ctx): ..."
    assert broken(install_plugin, source).startswith("there is no hook 'phasegate_onstep'.")


def test_a_misspelt_specname_is_refused(install_plugin: Any) -> None:
    source = "@hookimpl(specname='phasegate_on_stop')\ndef anything(ctx): ..."
    assert broken(install_plugin, source) == "there is no hook 'phasegate_on_stop'. Did you mean 'phasegate_on_step'?"


def test_an_undecorated_hook_is_refused(install_plugin: Any) -> None:
    source = "def phasegate_on_step(ctx): ..."
    assert broken(install_plugin, source) == "phasegate_on_step looks like a hook but lacks @hookimpl."


def test_a_misspelt_and_undecorated_hook_is_refused(install_plugin: Any) -> None:
    source = "def phasegate_before_phse(ctx): ..."
    expected = "phasegate_before_phse looks like a hook but lacks @hookimpl. Did you mean 'phasegate_before_phase'?"
    assert broken(install_plugin, source) == expected


def test_a_hook_marked_for_another_host_is_refused(install_plugin: Any) -> None:
    source = "import pluggy\n@pluggy.HookimplMarker('other')\ndef phasegate_on_step(ctx): ..."
    assert broken(install_plugin, source) == "phasegate_on_step looks like a hook but lacks @hookimpl."


def test_a_hook_that_is_not_a_plain_function_is_refused(install_plugin: Any) -> None:
    source = "@hookimpl\n@functools.lru_cache\ndef phasegate_on_step(ctx): ..."
    assert "is not a plain function; pluggy would never call it." in broken(install_plugin, source)


def test_an_imported_module_that_shares_the_prefix_is_no_hook(install_plugin: Any) -> None:
    install_plugin("phasegate-lego", "import phasegate_lego\nphasegate_version = '1'")
    assert Plugins.load(["lego"]).order[-1] == "phasegate-lego:lego"


@pytest.mark.parametrize("parameters", ["ctx=None", "*, ctx", "ctx, extra=1"])
def test_a_parameter_that_pluggy_would_never_fill_is_refused(install_plugin: Any, parameters: str) -> None:
    source = f"@hookimpl\ndef phasegate_on_step({parameters}): ..."
    assert broken(install_plugin, source).endswith(
        ": a hook parameter has no default and is not keyword-only; pluggy would never fill it."
    )


def test_the_refusal_of_a_default_shows_the_signature(install_plugin: Any) -> None:
    source = "@hookimpl\ndef phasegate_on_step(ctx: StepContext = None): ..."
    assert broken(install_plugin, source).startswith("phasegate_on_step(ctx=None): ")


@pytest.mark.parametrize("parameters", ["*args", "**kwargs"])
def test_collecting_parameters_are_refused(install_plugin: Any, parameters: str) -> None:
    source = f"@hookimpl\ndef phasegate_on_step({parameters}): ..."
    assert "a hook names its parameters" in broken(install_plugin, source)


def test_a_parameter_the_hook_does_not_have_is_refused(install_plugin: Any) -> None:
    source = "@hookimpl\ndef phasegate_on_step(context): ..."
    expected = "phasegate_on_step(context): phasegate_on_step takes the parameter 'ctx', not 'context'."
    assert broken(install_plugin, source) == expected


def test_a_hook_that_yields_without_being_a_wrapper_is_refused(install_plugin: Any) -> None:
    source = "@hookimpl\ndef phasegate_on_step(ctx):\n    yield"
    assert broken(install_plugin, source).startswith(
        "phasegate_on_step yields but is no wrapper; its body would never run."
    )


def test_a_wrapper_without_a_yield_is_refused(install_plugin: Any) -> None:
    source = "@hookimpl(wrapper=True)\ndef phasegate_run_phase(ctx):\n    return 1"
    assert broken(install_plugin, source).startswith("phasegate_run_phase is a wrapper without a yield")


def test_an_old_style_wrapper_is_refused(install_plugin: Any) -> None:
    source = "@hookimpl(hookwrapper=True)\ndef phasegate_run_phase(ctx):\n    yield"
    assert broken(install_plugin, source).startswith("phasegate_run_phase is an old-style hookwrapper")


def test_a_wrapper_of_components_is_refused(install_plugin: Any) -> None:
    source = "@hookimpl(wrapper=True)\ndef phasegate_components():\n    return (yield)"
    assert broken(install_plugin, source).startswith("phasegate_components cannot be a wrapper")


def test_an_async_hook_is_refused(install_plugin: Any) -> None:
    source = "@hookimpl\nasync def phasegate_on_step(ctx): ..."
    assert (
        broken(install_plugin, source) == "phasegate_on_step is async; nothing would await it. Write a plain function."
    )


def test_a_bad_plugin_leaves_nothing_of_itself_behind(install_plugin: Any) -> None:
    install_plugin("phasegate-good", f"{HEAD}@hookimpl\ndef phasegate_on_end(ctx): ...")
    assert broken(
        install_plugin, "@hookimpl\ndef phasegate_on_end(ctx): ...\n@hookimpl\ndef phasegate_on_edn(ctx): ..."
    )
    plugins = Plugins.load(["good"])
    assert [call.owner for call in plugins.calls("phasegate_on_end")] == ["phasegate-good:good"]


def components(install_plugin: Any, body: str) -> str:
    return broken(install_plugin, f"@hookimpl\ndef phasegate_components():\n    {body}")


@pytest.mark.parametrize("body", ["yield RouterSpec", "yield {'name': 'x'}", "yield None", "return 'switch'"])
def test_what_is_not_a_component_is_refused(install_plugin: Any, body: str) -> None:
    assert "which is not a component such as RouterSpec(…)." in components(install_plugin, body)


def test_the_base_class_is_no_component(install_plugin: Any) -> None:
    assert "which is not a component" in components(install_plugin, "yield Component(name='x', target='a:b')")


@pytest.mark.parametrize("body", ["pass", "return RouterSpec(name='x', target='a:b')"])
def test_components_that_cannot_be_iterated_are_refused(install_plugin: Any, body: str) -> None:
    assert components(install_plugin, body).endswith("yield components or return a list of them.")


def test_one_name_twice_in_one_plugin_is_refused(install_plugin: Any) -> None:
    body = "return [RouterSpec(name='x', target='a:b'), RouterSpec(name='x', target='c:d')]"
    assert components(install_plugin, body) == "it offers the router 'x' twice."


def test_one_name_in_two_hooks_of_one_plugin_is_refused(install_plugin: Any) -> None:
    source = "\n".join(
        f"@hookimpl(specname='phasegate_components')\ndef {name}():\n    yield RouterSpec(name='x', target='a:b')"
        for name in ("first", "second")
    )
    assert broken(install_plugin, source) == "it offers the router 'x' twice."


def test_one_name_for_two_kinds_is_fine(install_plugin: Any) -> None:
    body = "return [RouterSpec(name='x', target='a:b'), LossSpec(name='x', target='c:d')]"
    install_plugin("phasegate-lego", f"{HEAD}@hookimpl\ndef phasegate_components():\n    {body}")
    registry = Plugins.load(["lego"]).components()
    assert {entry.kind for entry in registry if entry.name == "x"} == {"router", "loss"}


@pytest.mark.parametrize("name", ["Switch", "two words", "a_b", "a--b", "-a", "a:b", ""])
def test_a_bad_component_name_is_refused(install_plugin: Any, name: str) -> None:
    expected = f"{name!r} is not a component name: use a-z, 0-9 and single hyphens."
    assert components(install_plugin, f"yield RouterSpec(name={name!r}, target='a:b')") == expected


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ("target='a.b'", "has the target 'a.b'; write 'module:attribute'."),
        ("target='a:b c'", "has the target 'a:b c'; write 'module:attribute'."),
        ("target='a:b', config='SwitchConfig'", "has the config 'SwitchConfig'; write 'module:Dataclass'."),
        ("target='a:b', config=dict", "has the config <class 'dict'>; write 'module:Dataclass'."),
        ("target='a:b', revision=0", "has the revision 0; revisions count 1, 2, 3, …"),
        ("target='a:b', revision=True", "has the revision True; revisions count 1, 2, 3, …"),
        ("target='a:b', replaces='old'", "has replaces='old'; write a tuple of names."),
        ("target='a:b', replaces=('Old',)", "replaces 'Old', which is not a component name."),
    ],
)
def test_a_field_of_the_wrong_form_is_refused(install_plugin: Any, fields: str, why: str) -> None:
    assert components(install_plugin, f"yield RouterSpec(name='x', {fields})") == f"the router 'x' {why}"


def test_a_bare_string_where_names_belong_is_refused(install_plugin: Any) -> None:
    body = "yield PhaseSpec(name='x', target='a:b', requires='knowledge')"
    assert components(install_plugin, body) == "the phase 'x' has requires='knowledge'; write a tuple of names."


def test_an_exception_while_components_are_yielded_keeps_its_type_and_names_the_plugin(install_plugin: Any) -> None:
    source = (
        "@hookimpl\ndef phasegate_components():\n    yield RouterSpec(name='x', target='a:b')\n    raise KeyError('k')"
    )
    install_plugin("phasegate-bad", HEAD + source)
    with pytest.raises(KeyError) as caught:
        Plugins.load(["bad"])
    assert caught.value.__notes__ == ["raised by plugin phasegate-bad:bad 1.0 in phasegate_components"]


def test_two_entry_points_of_one_package_may_not_offer_the_same_component(
    install_plugin: Any, plugin_site: Any
) -> None:
    install_plugin(
        "phasegate-pair", f"{HEAD}@hookimpl\ndef phasegate_components():\n    yield RouterSpec(name='x', target='a:b')"
    )
    (plugin_site / "phasegate_pair" / "other.py").write_text((plugin_site / "phasegate_pair" / "plugin.py").read_text())
    points = plugin_site / "phasegate_pair-1.0.dist-info" / "entry_points.txt"
    points.write_text("[phasegate.plugins.v1]\nleft = phasegate_pair.plugin\nright = phasegate_pair.other\n")
    with pytest.raises(
        PluginError, match="another entry point of phasegate-pair offers the router phasegate-pair:x too"
    ):
        Plugins.load(["phasegate-pair"])


def test_one_module_under_two_entry_points_is_refused_as_one_plugin(install_plugin: Any, plugin_site: Any) -> None:
    install_plugin("phasegate-pair")
    points = plugin_site / "phasegate_pair-1.0.dist-info" / "entry_points.txt"
    points.write_text("[phasegate.plugins.v1]\nleft = phasegate_pair.plugin\nright = phasegate_pair.plugin\n")
    with pytest.raises(PluginError, match="is not a valid plugin"):
        Plugins.load(["phasegate-pair"])
