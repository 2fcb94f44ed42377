"""Reloaders that servers bring of their own."""

import pytest

from recluster.child.nested import reloader_of


@pytest.mark.parametrize(
    ("words", "environ", "named"),
    [
        ("uvicorn main:app --reload", {}, "--reload"),
        ("/opt/bin/gunicorn --reload app:app", {}, "--reload"),
        ("sanic app --dev", {}, "--dev"),
        ("flask run --debug", {}, "--debug"),
        ("flask --app x run", {"FLASK_DEBUG": "1"}, "FLASK_DEBUG"),
        ("flask --app x run --no-reload", {"FLASK_DEBUG": "1"}, None),
        ("flask --app x run", {"FLASK_DEBUG": "0"}, None),
        ("manage.py runserver", {}, "--noreload"),
        ("django runserver --noreload", {}, None),
        ("manage.py migrate", {}, None),
        ("uvicorn main:app", {}, None),
        ("server.py --debug", {}, None),
    ],
)
def test_it_is_told_to_be_off(words, environ, named):
    name, *rest = words.split()
    for line in (reloader_of([name], rest, environ), reloader_of([name, *rest], [], environ)):
        assert (line is None) == (named is None)
        assert named is None or named in line
