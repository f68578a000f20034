"""GET with httpx through an HTTPS proxy, with a client certificate towards the proxy.

Arguments: proxy URL, target URL, the proxy's CA file, the target's CA file, certificate, key.  The
placeholder is in API_KEY.
"""

import os
import ssl
import sys

import httpx

proxy, target, proxy_ca, target_ca, certificate, key = sys.argv[1:]
towards_proxy = ssl.create_default_context(cafile=proxy_ca)
towards_proxy.load_cert_chain(certificate, key)
context = ssl.create_default_context(cafile=target_ca)
headers = {"Authorization": f"Bearer {os.environ['API_KEY']}"}
with httpx.Client(
    proxy=httpx.Proxy(proxy, ssl_context=towards_proxy), verify=context, trust_env=False, timeout=20
) as client:
    for _ in range(2):
        answer = client.get(target, headers=headers)
        print(answer.status_code, answer.headers.raw, answer.text)
        answer.raise_for_status()
