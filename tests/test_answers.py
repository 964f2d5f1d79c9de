"""The questions, their defaults and what is derived from them."""

import json
import tomllib

import pytest
import yaml
from conftest import KIT, generate
from cookiecutter.generate import generate_context
from cookiecutter.prompt import prompt_for_config

QUESTIONS = json.loads((KIT / "cookiecutter.json").read_text())
ASKED = [name for name in QUESTIONS if not name.startswith("_")]


def answered(**answers):
    """Render every answer the way cookiecutter does without questions."""
    context = generate_context(str(KIT / "cookiecutter.json"), extra_context=answers)
    return prompt_for_config(context, no_input=True)


def test_there_are_eleven_questions_each_with_words_of_its_own():
    """No question is asked by its variable's name."""
    expected = (
        "project_name project package description author owner license python manager quality "
        "deploy"
    )
    assert expected.split() == ASKED
    assert ASKED == list(QUESTIONS["__prompts__"])


def test_defaults():
    """The answers of somebody who presses Enter eleven times."""
    defaults = answered()
    assert {
        "project_name": "Penguins",
        "project": "penguins",
        "package": "penguins",
        "description": "A model that is trained, tested and served by one small project.",
        "author": "The Penguins team",
        "owner": "your-org",
        "license": "MIT",
        "python": "3.12",
        "manager": "poetry",
        "quality": "black",
        "deploy": "ssh",
    } == {name: defaults[name] for name in ASKED}


def test_names_are_derived_from_the_project_name():
    """Folder and package follow from the name, unless they are given."""
    named = answered(project_name="Schöne Häuser 2")
    assert ("schone-hauser-2", "schone_hauser_2") == (named["project"], named["package"])
    assert "other" == answered(project_name="Any", package="other")["package"]


def test_the_table_of_options_has_every_choice():
    """`_optional` names the same options and values as the questions."""
    choices = {name: sorted(QUESTIONS[name]) for name in ASKED if isinstance(QUESTIONS[name], list)}
    table = {option: sorted(values) for option, values in QUESTIONS["_optional"].items()}
    assert choices == table


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        'a "quoted" one',
        "back\\slash \\n \\",
        "naïve Ünal",
        "🐧 \U0001f469‍\U0001f52c",
        "a: b # c",
        "'''",
    ],
)
def test_free_text_survives_in_toml_and_yaml(text):
    """The derived quoted strings mean the same text in both languages."""
    quoted = answered(project_name=text, description=text, project="a", package="a")
    for name in ("__name_quoted", "__description_quoted"):
        assert text == tomllib.loads(f"text = {quoted[name]}")["text"]
        assert text == yaml.safe_load(f"text: {quoted[name]}")["text"]


def test_generating_is_the_same_twice(tmp_path):
    """Nothing in a project depends on when or where it was generated."""
    trees = []
    for folder in ("one", "two"):
        project = generate(tmp_path / folder)
        paths = (path for path in sorted(project.rglob("*")) if path.is_file())
        inside = ((path.relative_to(project).as_posix(), path.read_bytes()) for path in paths)
        trees.append([(name, content) for name, content in inside if not name.startswith(".git/")])
    assert trees[0] == trees[1]
