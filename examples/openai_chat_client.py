"""Talk to a running server (`vllm serve`) with the official client: `pip install openai` first."""

from openai import OpenAI

client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
model = client.models.list().data[0].id
stream = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "What is the capital of France?"}], stream=True
)
for event in stream:
    print(event.choices[0].delta.content or "", end="", flush=True)
print()
