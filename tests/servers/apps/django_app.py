"""A Django project in one file; as a program it is its own manage.py."""

import sys

from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path
from facts import facts

settings.configure(
    DEBUG=True, SECRET_KEY="demo", ROOT_URLCONF=__name__, ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None
)
urlpatterns = [path("", lambda request: JsonResponse(facts()))]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
else:
    app = get_wsgi_application()
