//! Whole connections as real servers and clients write them, for the generic tests and as fuzz seeds.

/// Request bytes and response bytes, each exchange complete once both sides have closed.
pub(super) const SAMPLES: &[(&[u8], &[u8])] = &[
    // nginx and curl: keep-alive, Content-Length, then 304 and HEAD, which have none.
    (
        b"GET /index.html?lang=en&token=abc HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n\
          GET /logo.png HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl/7.88.1\r\nIf-None-Match: \"6543-10\"\r\n\r\n\
          HEAD /big.iso HTTP/1.1\r\nHost: example.org\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Type: text/html\r\n\
          Content-Length: 13\r\nLast-Modified: Sun, 31 Dec 2023 00:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"6590-d\"\r\n\
          Accept-Ranges: bytes\r\n\r\n<p>Hello</p>\n\
          HTTP/1.1 304 Not Modified\r\nServer: nginx/1.22.1\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nETag: \"6543-10\"\r\n\r\n\
          HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nContent-Type: application/octet-stream\r\n\
          Content-Length: 4700372992\r\nConnection: keep-alive\r\n\r\n",
    ),
    // Python http.server: HTTP/1.0, the close ends the body.
    (
        b"GET /notes/ HTTP/1.1\r\nHost: localhost:8000\r\nUser-Agent: python-requests/2.31.0\r\n\
          Accept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nServer: SimpleHTTP/0.6 Python/3.11.2\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\
          Content-type: text/html; charset=utf-8\r\n\r\n<ul><li>one</li></ul>\n",
    ),
    // gunicorn: a form post, the answer 201; then 404.
    (
        b"POST /users/42/orders HTTP/1.1\r\nHost: shop.internal:8080\r\nContent-Type: application/json\r\n\
          Content-Length: 15\r\ntraceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\
          tracestate: vendor=1\r\n\r\n{\"item\":\"fish\"}\
          GET /missing HTTP/1.1\r\nHost: shop.internal:8080\r\nX-Forwarded-For: 203.0.113.9, 10.0.0.1\r\n\r\n",
        b"HTTP/1.1 201 CREATED\r\nServer: gunicorn\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nConnection: keep-alive\r\n\
          Content-Type: application/json\r\nContent-Length: 8\r\n\r\n{\"id\":7}\
          HTTP/1.1 404 NOT FOUND\r\nServer: gunicorn\r\nConnection: keep-alive\r\nContent-Type: text/html\r\n\
          Content-Length: 9\r\n\r\nnot found",
    ),
    // Node.js: chunked both ways, a chunk extension and a trailer.
    (
        b"POST /upload HTTP/1.1\r\nhost: node:3000\r\nconnection: keep-alive\r\ntransfer-encoding: chunked\r\n\
          user-agent: node\r\n\r\n5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n\
          GET /stream HTTP/1.1\r\nhost: node:3000\r\nconnection: keep-alive\r\nuser-agent: node\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Powered-By: Express\r\nContent-Type: application/json; charset=utf-8\r\n\
          Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\n\
          Transfer-Encoding: chunked\r\n\r\nb\r\n{\"ok\":true}\r\n0\r\n\r\n\
          HTTP/1.1 500 Internal Server Error\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\
          Trailer: Checksum\r\n\r\n4\r\noops\r\n0\r\nChecksum: 9\r\n\r\n",
    ),
    // Go net/http: no Server field; 204 and a redirect.
    (
        b"DELETE /items/9f1c HTTP/1.1\r\nHost: api:8080\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n\
          GET /old HTTP/1.1\r\nHost: api:8080\r\nUser-Agent: Go-http-client/1.1\r\nAccept-Encoding: gzip\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\n\r\n\
          HTTP/1.1 302 Found\r\nContent-Type: text/html; charset=utf-8\r\nLocation: /new\r\n\
          Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 27\r\n\r\n<a href=\"/new\">Found</a>.\n\n",
    ),
    // Java com.sun.net.httpserver and its HTTP client, which offers h2c and is declined.
    (
        b"GET /hello HTTP/1.1\r\nConnection: Upgrade, HTTP2-Settings\r\nContent-Length: 0\r\nHost: localhost:8080\r\n\
          HTTP2-Settings: AAEAAEAAAAIAAAAAAAMAAAAAAAQBAAAAAAUAAEAABgAGAAA\r\nUpgrade: h2c\r\n\
          User-Agent: Java-http-client/17.0.9\r\n\r\n\
          GET /again HTTP/1.1\r\nContent-Length: 0\r\nHost: localhost:8080\r\nUser-Agent: Java-http-client/17.0.9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-length: 5\r\n\r\nhello\
          HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nTransfer-encoding: chunked\r\n\r\n\
          5\r\nagain\r\n0\r\n\r\n",
    ),
    // Ruby (WEBrick, Puma), and curl with Expect: an interim response first.
    (
        b"PUT /files/report.txt HTTP/1.1\r\nHost: ruby:9292\r\nUser-Agent: curl/8.5.0\r\nContent-Length: 6\r\n\
          Expect: 100-continue\r\n\r\nreport\
          OPTIONS * HTTP/1.1\r\nHost: ruby:9292\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n\
          HTTP/1.1 200 OK \r\nContent-Type: text/plain\r\nServer: WEBrick/1.8.1 (Ruby/3.1.2/2022-04-12)\r\n\
          Date: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: 2\r\nConnection: Keep-Alive\r\n\r\nok\
          HTTP/1.1 200 OK\r\nAllow: GET, HEAD, PUT, OPTIONS\r\nContent-Length: 0\r\n\r\n",
    ),
    // Through a forward proxy, by HTTP/1.0; an unknown method; bare line feeds and a stray empty line.
    (
        b"GET http://user:pw@origin.example:81/a/b?c=d HTTP/1.0\r\nUser-Agent: Wget/1.21\r\nConnection: Keep-Alive\r\n\r\n\
          \r\nPURGE /cache/1 HTTP/1.1\nHost: proxy\n\n",
        b"HTTP/1.0 502 Bad Gateway\r\nContent-Length: 3\r\nConnection: keep-alive\r\n\r\nbad\
          HTTP/1.1 200 Purged\nContent-Length: 2\n\nok",
    ),
];
