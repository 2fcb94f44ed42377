import sys

from facts import facts
from flask import Flask, jsonify

app = Flask(__name__)


@app.get("/")
def index():
    return jsonify(facts())


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]))
