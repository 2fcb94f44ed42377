import sys

from facts import facts
from quart import Quart

app = Quart(__name__)


@app.get("/")
async def index():
    return facts()


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), use_reloader=False)
