"""A wrong recipe gives one sentence with file, field and fix; a correct one survives a round trip."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from adainf.errors import BAD_INPUT, BadInput
from adainf.pipeline.load_recipe import load_recipe
from adainf.recipe import Recipe
from adainf.storage import open_store

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.yaml"))
MINIMAL = """
name: tiny
real: {kind: digits}
generator: {kind: diffusion, steps: 10}
generate: {images: 100}
"""


def load(tmp_path: Path, text: str) -> Recipe:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return load_recipe(path)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_that_we_ship_is_valid_and_bears_its_files_name(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_a_recipe_may_lie_in_a_store(s3_env: str) -> None:
    open_store(s3_env).put("recipes/a.yaml", MINIMAL.encode())
    assert load_recipe(f"{s3_env}/recipes/a.yaml").name == "tiny"
    with pytest.raises(BadInput, match=r"recipes/b\.yaml: no such recipe"):
        load_recipe(f"{s3_env}/recipes/b.yaml")


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "tiny-imagenet"])
def test_the_papers_budget(name: str) -> None:
    pretrain = load_recipe(next(path for path in RECIPES if path.stem == name)).pretrain
    assert (pretrain.steps, pretrain.global_batch, pretrain.warmup_fraction) == (100_000, 512, 0.01)
    assert pretrain.method.temperature == 0.2
    assert pretrain.optimizer.weight_decay == 1e-4


def test_what_show_prints_loads_to_the_same_recipe(tmp_path: Path) -> None:
    recipe = load(tmp_path, MINIMAL)
    shown = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)
    assert load(tmp_path, shown) == recipe


def test_every_setting_is_described() -> None:
    schema = Recipe.model_json_schema()
    for name, section in {**schema["$defs"], "Recipe": schema}.items():
        bare = [field for field, about in section["properties"].items() if "description" not in about and field != "kind"]
        assert not bare, f"{name}: {bare} without a docstring"


def test_numbers_in_exponent_form_are_numbers(tmp_path: Path) -> None:
    recipe = load(tmp_path, MINIMAL + "pretrain: {optimizer: {weight_decay: 1e-4, learning_rate: 5E-1}}")
    assert recipe.pretrain.optimizer.weight_decay == 1e-4
    assert recipe.pretrain.optimizer.learning_rate == 0.5


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("pretrian: {}", "pretrian is not a setting; did you mean 'pretrain'?"),
        ("pretrain: {stepz: 3}", "pretrain.stepz is not a setting; did you mean 'steps'?"),
        (
            "pretrain: {method: {kind: simclr, temprature: 1}}",
            "pretrain.method.temprature is not a setting; did you mean 'temperature'?",
        ),
        ("pretrain: {method: {temperature: 1}}", "pretrain.method.kind must be one of 'simclr', 'moco'"),
        ("pretrain: {method: {kind: simcrl}}", "pretrain.method.kind must be one of 'simclr', 'moco'"),
        ("pretrain: {backbone: {patch_px: 5}}", "pretrain.backbone needs image_size_px as a multiple of patch_px"),
        ("pretrain: {xyzzy: 1}", "pretrain.xyzzy is not a setting; known here: method, "),
        ("pretrain: {steps: many}", "pretrain.steps is 'many'; input should be a valid integer"),
        ("pretrain: {steps: 0}", "pretrain.steps is 0; input should be greater than or equal to 1"),
        ("pretrain: {steps: 10.5}", "pretrain.steps is 10.5; input should be a valid integer"),
        ("pretrain: {seeds: [1, 1]}", "pretrain contains a seed twice in seeds; list"),
        ("pretrain: {optimizer: {learning_rate: .inf}}", "pretrain.optimizer.learning_rate is inf; input should be a finite"),
        ("pretrain: {optimizer: {learning_rate: 1e300}}", "pretrain.optimizer.learning_rate is '1e300'; input should be less"),
        (
            "pretrain: {method: {kind: simclr, projector_out: 1000000000000}}",
            "pretrain.method.projector_out is 1000000000000; input should",
        ),
        ("plan: {max_generated_share: 1e-300}", "plan.max_generated_share is '1e-300'; input should be greater than"),
        ("pretrain: 3", "pretrain is 3; input should be a valid dictionary"),
        ("arms: [none, verified]", "arms lists verified and plan.verify is null; set plan.verify"),
        ("plan: {verify: {}}", "plan.verify is for arm verified, which is not in arms"),
        ("plan: {verify: {budget: 0}}", "plan.verify.budget is 0; input should be greater"),
        ("plan: {schedule: seen}", "plan.schedule was removed in 0.2.0: arms adainf and weak use the plan's augmentation"),
        ("plan: {tiers: 2}", "plan.tiers was removed in 0.2.0: the plan gives all shards of a source one weight; delete it"),
        ("generators: {a: {generator: {kind: gan, steps: 1}}}", "generator and generators are both set; remove one"),
        ("arms: [none, none]", "arms contains an arm twice"),
        (
            "arms: [none, best]",
            "arms.1 is 'best'; input should be 'none', 'none-weak', 'vanilla', 'reweighted', 'weak', 'adainf', 'verified', "
            "'positives', 'adainf-positives', 'third-view' or 'random-positives'",
        ),
        ("arms: [none, positives]", "arms lists positives and positives is null; set positives: {}"),
        ("arms: [none, third-view]", "arms lists third-view and positives is null; set positives: {}"),
        (
            "positives: {}",
            "positives is for arms positives, adainf-positives and their controls; add one to arms, or remove it",
        ),
        (
            "arms: [third-view]\npositives: {}",
            "arms lists third-view, the control of positives.use.kind add; set that, or remove",
        ),
        ("arms: [positives]\npositives: {draw: {kind: neighbour}}", "which uses the encoder of arm none; add none to arms"),
        ("arms: [positives]\npositives: {draw: {kind: noise}}", "positives.draw.kind must be one of 'renoise', 'neighbour'"),
        (
            "arms: [positives]\npositives: {draw: {kind: renoise, sigma: 90}}",
            "positives.draw.sigma is 90, outside of the sampler's",
        ),
        ("arms: [positives]\npositives: {draw: {kind: renoise, sigma: 0.001}}", "positives.draw.sigma is 0.001, outside"),
        (
            "arms: [positives]\npositives: {use: {kind: replace, probability: 0}}",
            "positives.use.probability is 0; input should",
        ),
        ("arms: [positives]\npositives: {use: {kind: add, wieght: 1}}", "positives.use.wieght is not a setting; did you mean"),
        ("arms: [positives]\npositives: {candidates: 0}", "positives.candidates is 0; input should be greater"),
        ("arms: [positives]\npositives: {source: a}", "positives.source is a; remove it, there is one generator"),
        (
            "arms: [positives]\npositives: {use: {kind: add}}\npretrain: {method: {kind: byol}}",
            "positives.use.kind is add, which method byol does not support; set it to replace",
        ),
        ("name: other", "line 6, column 1 is not valid YAML (duplicate key 'name')"),
        ("name: [", "is not valid YAML"),
        ("? [a]\n: b", "line 6, column 3 is not valid YAML (the key is not a scalar)"),
        ("title: 2026-13-45", "line 6, column 8 is not valid YAML ('2026-13-45' is not a valid timestamp)"),
        ("title: !!timestamp x", "'x' is not a valid timestamp"),
        ("title: " + "9" * 5000, "is not a valid int"),
        ("title: 0x_", "'0x_' is not a valid int"),
        ("title: !!int abc", "'abc' is not a valid int"),
        ("title: !!float x", "'x' is not a valid float"),
        ("title: !!bool maybe", "'maybe' is not a valid bool"),
        ("title: " + "[" * 3000 + "]" * 3000, "nested too deeply"),
        ("title: '\0'", "is not valid YAML"),
        ("pretrain: {steps: 0x" + "f" * 5000 + "}", "is not a valid int"),
    ],
)
def test_an_invalid_line_is_named_with_its_fix(tmp_path: Path, change: str, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        load(tmp_path, f"{MINIMAL}{change}\n")
    assert str(error.value).startswith(f"{tmp_path / 'recipe.yaml'}: ")
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert error.value.exit_code == BAD_INPUT


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("kind: digits", "kind: digit", "real.kind must be one of 'digits', 'fashion-mnist'"),
        ("{kind: digits}", "{}", "real.kind must be one of 'digits', 'fashion-mnist'"),
        (
            "{kind: digits}",
            "{kind: digits, imagesize_px: 3}",
            "real.imagesize_px is not a setting; did you mean 'image_size_px'",
        ),
        ("{kind: digits}", "{kind: npz}", "real.path is missing; add it"),
        ("steps: 10}", "steps: 10, unet: {multipliers: []}}", "generator.unet.multipliers is []; tuple should have at least 1"),
        ("steps: 10}", "steps: 10, sampler: {sigma_min: 90}}", "generator.sampler needs sigma_min below sigma_max, not 90"),
        ("{images: 100}", "{}", "generate.images is missing"),
        ("name: tiny", "name: Tiny Run", "name is 'Tiny Run'; string should match pattern"),
        ("name: tiny\n", "", "name is missing; add it"),
        (MINIMAL, "- 1\n", "a recipe is a mapping of settings, not a list"),
        (MINIMAL, "", "a recipe is a mapping of settings, not an empty file"),
    ],
)
def test_a_wrong_recipe_is_explained(tmp_path: Path, old: str, new: str, sentence: str) -> None:
    assert old in MINIMAL
    with pytest.raises(BadInput) as error:
        load(tmp_path, MINIMAL.replace(old, new))
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("generators", "sentence"),
    [
        ("", "generator is missing; add it, or name several in generators"),
        (
            "generators: {a: {generator: {kind: gan, steps: 1}}}\narms: [positives]\npositives: {}",
            "positives.source is null; set it to one of a",
        ),
        (
            "generators: {a: {generator: {kind: gan, steps: 1}}}\narms: [positives]\npositives: {source: a}",
            "positives.draw.kind is renoise, which needs a generator of kind diffusion, not gan; set it to neighbour",
        ),
        (
            "generators: {positives: {generator: {kind: gan, steps: 1}}}\narms: [positives]\npositives: {source: positives}",
            "generators contains the name positives, which the candidates have; rename",
        ),
        ("generators: {}", "generators is {}; dictionary should have at least 1 item"),
        ("generators: {A b: {generator: {kind: gan, steps: 1}}}", "'A b'; string should match pattern"),
        ("generators: {a: {kind: gan}}", "generators.a.kind is not a setting; known here: generator, generate"),
        ("generators: {a: {generatr: {kind: gan}}}", "generators.a.generatr is not a setting; did you mean 'generator'?"),
        ("generators: {a: {generator: {kind: gann}}}", "generators.a.generator.kind must be one of 'diffusion', 'gan'"),
        (
            "generators: {a: {generator: {kind: gan, stps: 1}}}",
            "generators.a.generator.stps is not a setting; did you mean 'steps'",
        ),
        (
            "generators: {a: {generator: {kind: diffusion, steps: 1, objective: {kind: ddpm, timestep: 9}}}}",
            "generators.a.generator.objective.timestep is not a setting; did you mean 'timesteps'?",
        ),
        (
            "generators: {a: {generator: {kind: gan, steps: 1}, generate: {seed: 1}}}",
            "generators.a.generate.images is missing; set how many images to generate",
        ),
    ],
)
def test_a_wrong_source_is_named(tmp_path: Path, generators: str, sentence: str) -> None:
    with pytest.raises(BadInput) as error:
        load(tmp_path, MINIMAL.replace("generator: {kind: diffusion, steps: 10}", generators))
    assert sentence in str(error.value)


def test_sources_take_the_recipes_number_of_images_and_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    """Their order in the file must not be part of the stream's."""
    named = "generators: {b: {generator: {kind: gan, steps: 1}}, a: {generator: {kind: gan, steps: 2}, generate: {images: 7}}}"
    sources = load(tmp_path, MINIMAL.replace("generator: {kind: diffusion, steps: 10}", named)).sources
    assert [(name, one.generator.steps, one.generate.images) for name, one in sources.items()] == [("a", 2, 7), ("b", 1, 100)]
    (one,) = load(tmp_path, MINIMAL).sources.values()
    assert (one.name, one.where("generate"), one.label("fit")) == ("", "generate", "fit")


def _bomb(levels: int) -> str:
    lines = ["b0: &b0 [lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"b{n}: &b{n} [{', '.join([f'*b{n - 1}'] * 9)}]" for n in range(1, levels)]
    return "\n".join([*lines, f"name: *b{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (_bomb(40), "aliases expand to more than 100,000 values"),
        (_bomb(4), "b0 is not a setting"),
        (f"name: tiny\nreal: {{kind: digits, split_seed: {[[[[9] * 20] * 20] * 9]}}}", "real.split_seed is [[["),
        ("name: &a [*a]", "aliases expand to more than 100,000 values"),
        ("real: &a {kind: digits, path: *a}", "aliases expand to more than 100,000 values"),
        ("real: &a {kind: digits}\nplan: {<<: *a, <<: [*a, *a], x: 1, x: 2}", "duplicate key 'x'"),
        ("plan: {<<: 3}", "expected a mapping or list of mappings for merging"),
    ],
)
def test_aliases_cannot_fill_the_memory(tmp_path: Path, text: str, sentence: str) -> None:
    """340 bytes that expand to nine billion values: neither loading nor the message takes longer than for any other recipe."""
    with pytest.raises(BadInput, match=re.escape(sentence)) as error:
        load(tmp_path, text)
    assert len(str(error.value)) < 1000


def test_merge_keys_reuse_settings(tmp_path: Path) -> None:
    """Own keys win over merged ones, wherever the anchor is."""
    text = MINIMAL.replace(
        "generator: {kind: diffusion, steps: 10}",
        """generators:
  a: &a {generator: &g {kind: gan, <<: &more {steps: 2, batch: 64}}}
  b: {generator: {<<: *g, steps: 3}}
  c: {<<: *a}
  d: {generator: {kind: gan, <<: [{latent: 8}, *more], steps: 4}}""",
    )
    generators = {name: source.generator for name, source in load(tmp_path, text).sources.items()}
    assert {name: (one.steps, one.batch) for name, one in generators.items()} == {
        "a": (2, 64),
        "b": (3, 64),
        "c": (2, 64),
        "d": (4, 64),
    }


def test_a_missing_and_a_binary_file_are_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such recipe"):
        load_recipe(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match="cannot be read as a recipe"):
        load_recipe(tmp_path / "binary.yaml")
    with pytest.raises(BadInput, match="cannot be read as a recipe"):
        load_recipe(tmp_path)


@pytest.mark.heavy
@given(text=st.text(max_size=200))
@settings(max_examples=300, deadline=None)
def test_no_text_at_all_gives_anything_but_a_recipe_or_a_sentence(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput):
        load_recipe(path)


@pytest.mark.heavy
@given(
    tree=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from(["name", "real", "generator", "pretrain", "kind", "steps", "seeds", "x"]), inner)
        ),
        max_leaves=10,
    )
)
@settings(max_examples=300, deadline=None)
def test_no_tree_of_settings_crashes_the_explanation(tree: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed-tree.yaml"
    path.write_text(yaml.safe_dump(tree), encoding="utf-8")
    with pytest.raises(BadInput):
        load_recipe(path)


# ------------------------------------------------------------------------------------------------------------------- --set


def test_settings_on_the_command_line_are_typed_and_part_of_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    changes = ["pretrain.steps=600", "pretrain.seeds=[1, 2]", "pretrain.optimizer.learning_rate=1e-3", "plan.verify={}"]
    changes += ["arms=[none, verified]", "generator={kind: gan, steps: 5}", "pretrain.compile=true", "pretrain.steps=601"]
    changed = load_recipe(path, changes)
    assert (changed.pretrain.steps, changed.pretrain.seeds, changed.pretrain.optimizer.learning_rate) == (601, (1, 2), 1e-3)
    assert (changed.pretrain.compile, changed.generator.kind, changed.arms) == (True, "gan", ("none", "verified"))
    path.write_text("a: &a {steps: 5, global_batch: 8}\n" + MINIMAL + "pretrain: *a\n")
    with pytest.raises(BadInput, match="a is not a setting"):  # the alias is resolved, and its other place is not changed
        load_recipe(path, ["pretrain.steps=6"])


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("pretrain.steps", "invalid --set 'pretrain.steps': expected section.key=value"),
        ("=3", "expected section.key=value"),
        ("pretrain..steps=3", "expected section.key=value"),
        ("pretrain.stepz=3", "with --set pretrain.stepz=3: pretrain.stepz is not a setting; did you mean 'steps'?"),
        ("pretrain.steps=many", "pretrain.steps is 'many'; input should be a valid integer"),
        ("pretrain.steps=", "pretrain.steps is None"),
        ("pretrain.seeds=[1", "--set pretrain.seeds=[1: line 1, column 3 is not valid YAML"),
        ("name.first=x", "--set name.first=x: name is not a section of the recipe"),
        ("arms=[nope]", "arms.0 is 'nope'"),
    ],
)
def test_a_wrong_setting_on_the_command_line_is_one_sentence(tmp_path: Path, change: str, sentence: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(MINIMAL)
    with pytest.raises(BadInput, match=re.escape(sentence)):
        load_recipe(path, [change])


METHODS = ("simclr", "moco", "byol", "simsiam", "barlow", "vicreg", "spectral", "dino", "clip")


@pytest.mark.parametrize(
    ("kind", "optimizer", "family"),
    [
        ("simclr", ("lars", 0.4, 1e-4), "symmetric"),
        ("moco", ("sgd", 0.3, 1e-4), "symmetric"),
        ("byol", ("lars", 1.0, 1e-5), "asymmetric"),
        ("barlow", ("lars", 0.3, 1e-4), "asymmetric"),
        ("simsiam", ("sgd", 0.5, 1e-5), "symmetric"),
    ],
)
def test_optimiser_and_views_default_to_those_of_the_method(
    tmp_path: Path, kind: str, optimizer: tuple[str, float, float], family: str
) -> None:
    """The values of the paper's code; would catch a method that silently trains with SimCLR's."""
    pretrain = load(tmp_path, f"{MINIMAL}pretrain: {{method: {{kind: {kind}}}, augmentation: {{min_scale: 0.2}}}}").pretrain
    found = pretrain.optimizer
    assert (found.kind, found.learning_rate, found.weight_decay) == optimizer
    assert (pretrain.augmentation.family, pretrain.augmentation.min_scale) == (family, 0.2)


@pytest.mark.parametrize("kind", METHODS)
def test_what_a_recipe_sets_is_not_replaced(tmp_path: Path, kind: str) -> None:
    """Also a learning rate without a kind, and defaults of another kind of optimiser than the method's stay SimCLR's."""
    sections = "optimizer: {kind: adamw}, augmentation: {family: symmetric}"
    pretrain = load(tmp_path, f"{MINIMAL}pretrain: {{method: {{kind: {kind}}}, {sections}}}").pretrain
    assert (pretrain.optimizer.kind, pretrain.optimizer.learning_rate, pretrain.optimizer.weight_decay) == ("adamw", 0.4, 1e-4)
    assert pretrain.augmentation.family == "symmetric"
    rate = load(tmp_path, f"{MINIMAL}pretrain: {{method: {{kind: {kind}}}, optimizer: {{learning_rate: 0.01}}}}").pretrain
    assert rate.optimizer.learning_rate == 0.01


@pytest.mark.parametrize("method", ["{kind: nonsense}", "simclr", "[]", "3", "{}"])
def test_an_invalid_method_is_still_one_sentence(tmp_path: Path, method: str) -> None:
    text = f"{MINIMAL}pretrain: {{method: {method}, optimizer: 3}}"
    with pytest.raises(BadInput, match=r"pretrain\.(method|optimizer)"):
        load(tmp_path, text)
