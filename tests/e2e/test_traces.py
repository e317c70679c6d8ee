"""OpenTelemetry spans of a real server, taken in by a collector of few lines."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.http_server import KEY, serving, wait_for

# why ImportError: other packages bring some of its parts, and the exporter's own package also imports without protobuf
for _part in ("sdk.trace", "exporter.otlp.proto.http.trace_exporter", "proto.collector.trace.v1.trace_service_pb2"):
    pytest.importorskip(f"opentelemetry.{_part}", exc_type=ImportError)


def test_each_request_is_a_span(tmp_path: Path):
    import http.client
    import json

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    spans = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                for scope in resource.scope_spans:
                    spans.extend(scope.spans)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Collector) as collector:
        threading.Thread(target=collector.serve_forever, daemon=True).start()
        endpoint = f"http://127.0.0.1:{collector.server_port}/v1/traces"
        with serving(tmp_path, "--otlp-traces-endpoint", endpoint) as server:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            headers = {"Authorization": f"Bearer {KEY}", "traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01"}
            body = {"prompt": "The capital of France is", "max_tokens": 3, "temperature": 0, "ignore_eos": True}
            connection.request("POST", "/v1/completions", json.dumps(body), headers)
            told = json.loads(connection.getresponse().read())
            connection.close()
        wait_for(lambda: spans, 10, "a span")
        collector.shutdown()
    [span] = spans
    found = {one.key: one.value for one in span.attributes}
    assert (span.name, span.trace_id.hex(), span.parent_span_id.hex()) == ("llm_request", "ab" * 16, "cd" * 8)
    assert found["gen_ai.request.id"].string_value == told["id"]
    assert found["gen_ai.usage.prompt_tokens"].int_value == 5
    assert found["gen_ai.usage.completion_tokens"].int_value == 3
    assert 0 < found["gen_ai.latency.time_to_first_token"].double_value < found["gen_ai.latency.e2e"].double_value
    assert span.start_time_unix_nano < span.end_time_unix_nano
