"""`telflow demo`: an instrumented example shop, the gateway, and what came of it."""
