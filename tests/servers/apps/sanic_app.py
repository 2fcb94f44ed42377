from facts import facts
from sanic import Sanic, json

app = Sanic("demo")


@app.get("/")
async def index(request):
    return json(facts())
