"""A Django project in one module: an application with a model, and the admin for it.

``python django_app.py migrate`` and the like manage it; $DATABASE is its SQLite database.
"""

import os
import sys
import threading
from typing import Any

import django
from django.conf import settings

settings.configure(
    DEBUG=False,
    SECRET_KEY="not a secret",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    STATIC_URL="static/",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": os.environ["DATABASE"]}},
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
    ],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ],
)
django.setup()

from django.contrib import admin  # noqa: E402 - what needs settings
from django.core.asgi import get_asgi_application  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import FileResponse, HttpResponse, StreamingHttpResponse  # noqa: E402
from django.urls import path  # noqa: E402


def stream(request: Any) -> Any:
    return StreamingHttpResponse(f"{number}\n".encode() for number in range(3))


def file(request: Any) -> Any:
    return FileResponse(open(__file__, "rb"))  # noqa: PTH123 - the response closes it


def echo(request: Any) -> Any:
    return HttpResponse(request.body)


echo.csrf_exempt = True  # type: ignore[attr-defined]


def thread(request: Any) -> Any:
    return HttpResponse(threading.current_thread().name)


urlpatterns = [
    path("admin/", admin.site.urls),
    path("stream", stream),
    path("file", file),
    path("echo", echo),
    path("thread", thread),
]
app = get_wsgi_application()
asgi = get_asgi_application()

if __name__ == "__main__":
    from django.core.management import execute_from_command_line

    execute_from_command_line(sys.argv)
