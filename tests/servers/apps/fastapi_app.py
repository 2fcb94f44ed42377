from facts import facts
from fastapi import FastAPI

app = FastAPI()


@app.get("/")
async def index():
    return facts()
