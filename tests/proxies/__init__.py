"""The bridge behind the reverse proxies that people run; needs nginx, HAProxy, Caddy and a JDK."""
