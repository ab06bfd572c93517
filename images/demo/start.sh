#!/bin/sh
# The application container's first process: two Python services, then nginx in front of them.
gunicorn --chdir /demo --bind 127.0.0.1:8000 --workers 2 shop:app &
gunicorn --chdir /demo --bind 127.0.0.1:8001 --workers 1 stock:app &
exec nginx -e stderr -c /demo/nginx.conf
