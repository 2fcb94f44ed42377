from facts import facts
from litestar import Litestar, get


@get("/")
async def index() -> dict:
    return facts()


app = Litestar([index])
