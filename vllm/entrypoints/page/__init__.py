"""The page in the browser: chat, dashboard, requests. Plain ES modules and one style sheet, served from the wheel.

    /  the page        /page/files/{name}  its modules and style        /page/state  what goes on, as JSON

Does not know: engines; it asks the front. Invariants: nothing is loaded from elsewhere (CSP), so it works offline; the
files hold no secret and are open, while every number is behind the key. Called by: openai.app.
"""
