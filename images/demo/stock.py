"""A second service, called by the first."""

import time

from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/stock/<int:article>")
def show_stock(article):
    time.sleep(0.02)
    return jsonify(article=article, left=3 * article)
