"""The demo's application: it knows nothing about tracing."""

import time

import requests
from flask import Flask, abort, jsonify, request

app = Flask(__name__)


@app.get("/users/<int:user>")
def show_user(user):
    if user >= 1000:
        abort(404)
    return jsonify(id=user, name=f"user {user}")


@app.get("/orders/<int:order>")
def show_order(order):
    stock = requests.get(f"http://127.0.0.1:8001/stock/{order % 10}", timeout=5)
    return jsonify(id=order, left=stock.json()["left"])


@app.post("/checkout")
def check_out():
    if request.get_json()["total"] > 100:
        raise ValueError("the payment provider said no")
    return jsonify(paid=True), 201


@app.get("/reports/<name>")
def show_report(name):
    time.sleep(0.2)
    return jsonify(name=name, rows=[])
