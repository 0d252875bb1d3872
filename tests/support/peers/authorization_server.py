"""An OAuth authorization server made with Authlib: `authorization_server.py`, on a free port.

Metadata, dynamic client registration, authorization code with PKCE, refresh, JWT access tokens
with the audience that a client asks for. Each user at /authorize has logged in as `alice` and
agrees. Its first line on stdout is its issuer; `POST /keys/rotate` makes a new key sign, the old
one stays published until `POST /keys/withdraw`. `GET /asked` counts the requests by path.
"""

from __future__ import annotations

import os
import secrets
import time
from collections import Counter
from dataclasses import dataclass

os.environ["AUTHLIB_INSECURE_TRANSPORT"] = "1"  # loopback only

from authlib.integrations.flask_oauth2 import AuthorizationServer
from authlib.oauth2 import OAuth2Error
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, ClientMixin, TokenMixin, grants
from authlib.oauth2.rfc7591 import ClientRegistrationEndpoint
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oauth2.rfc9068 import JWTBearerTokenGenerator
from flask import Flask, jsonify, request
from joserfc.jwk import RSAKey
from werkzeug.serving import make_server

SCOPES = ["mcp:use", "mcp:call"]
AUTH_METHODS = ["none", "client_secret_post", "client_secret_basic"]
TOKEN_S = 600


class Client(ClientMixin):
    """A program that has registered itself."""

    def __init__(self, facts, metadata):
        self.id, self.secret = facts["client_id"], facts["client_secret"]
        self.metadata = metadata

    def get_client_id(self):
        return self.id

    def get_default_redirect_uri(self):
        return self.metadata["redirect_uris"][0]

    def get_allowed_scope(self, scope):
        return " ".join(each for each in (scope or "").split() if each in SCOPES)

    def check_redirect_uri(self, redirect_uri):
        return redirect_uri in self.metadata["redirect_uris"]

    def check_client_secret(self, client_secret):
        return client_secret == self.secret

    def check_endpoint_auth_method(self, method, endpoint):
        return method == self.metadata.get("token_endpoint_auth_method", "client_secret_basic")

    def check_response_type(self, response_type):
        return response_type == "code"

    def check_grant_type(self, grant_type):
        return grant_type in self.metadata.get("grant_types", ["authorization_code"])


class User:
    """Who logs in."""

    def get_user_id(self):
        return "alice"


@dataclass
class Code(AuthorizationCodeMixin):
    """What was agreed to, until the client fetches its token."""

    code: str
    client_id: str
    redirect_uri: str
    scope: str
    resource: str | None
    code_challenge: str
    code_challenge_method: str

    def get_redirect_uri(self):
        return self.redirect_uri

    def get_scope(self):
        return self.scope


@dataclass
class Refresh(TokenMixin):
    """What a refresh token stands for."""

    client_id: str
    scope: str

    def get_scope(self):
        return self.scope

    def check_client(self, client):
        return client.get_client_id() == self.client_id


clients: dict[str, Client] = {}
codes: dict[str, Code] = {}
refreshes: dict[str, Refresh] = {}
keys = [RSAKey.generate_key(2048, {"kid": "1", "use": "sig"})]
asked: Counter[str] = Counter()
app = Flask(__name__)


def _save(token, asking):
    if "refresh_token" in token:
        refreshes[token["refresh_token"]] = Refresh(asking.client.id, token["scope"])


server = AuthorizationServer(app, query_client=clients.get, save_token=_save)


class CodeGrant(grants.AuthorizationCodeGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    def save_authorization_code(self, code, asking):
        data = asking.payload.data
        codes[code] = Code(
            code,
            asking.client.id,
            asking.payload.redirect_uri,
            asking.payload.scope,
            data.get("resource"),
            data["code_challenge"],
            data["code_challenge_method"],
        )

    def query_authorization_code(self, code, client):
        found = codes.get(code)
        same = found and found.client_id == client.id
        return found if same and found.resource == request.form.get("resource") else None

    def delete_authorization_code(self, authorization_code):
        del codes[authorization_code.code]

    def authenticate_user(self, authorization_code):
        return User()


class RefreshGrant(grants.RefreshTokenGrant):
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token):
        return refreshes.get(refresh_token)

    def authenticate_user(self, refresh_token):
        return User()

    def revoke_old_credential(self, refresh_token):
        pass


class Registration(ClientRegistrationEndpoint):
    def authenticate_token(self, asking):
        return "anybody may register"

    def get_server_metadata(self):
        return {"scopes_supported": SCOPES}

    def save_client(self, client_info, client_metadata, asking):
        client = Client(client_info, client_metadata)
        clients[client.id] = client
        return client


class Tokens(JWTBearerTokenGenerator):
    def get_jwks(self):
        return keys[-1]

    def get_audiences(self, client, user, scope):
        return request.form.get("resource") or client.get_client_id()

    def _get_expires_in(self, client, grant_type):
        return TOKEN_S


server.register_grant(CodeGrant, [CodeChallenge(required=True)])
server.register_grant(RefreshGrant)
server.register_endpoint(Registration)


@app.before_request
def _count():
    asked[request.path] += 1


@app.get("/asked")
def _asked():
    return jsonify(asked)


@app.get("/.well-known/oauth-authorization-server")
def _metadata():
    return jsonify(
        issuer=app.config["ISSUER"],
        authorization_endpoint=f"{app.config['ISSUER']}/authorize",
        token_endpoint=f"{app.config['ISSUER']}/token",
        registration_endpoint=f"{app.config['ISSUER']}/register",
        jwks_uri=f"{app.config['ISSUER']}/keys",
        scopes_supported=SCOPES,
        response_types_supported=["code"],
        grant_types_supported=["authorization_code", "refresh_token"],
        token_endpoint_auth_methods_supported=AUTH_METHODS,
        code_challenge_methods_supported=["S256"],
    )


@app.get("/authorize")
def _authorize():
    try:
        grant = server.get_consent_grant(end_user=User())
    except OAuth2Error as error:
        return jsonify(dict(error.get_body())), error.status_code
    return server.create_authorization_response(grant_user=User(), grant=grant)


@app.post("/token")
def _token():
    return server.create_token_response()


@app.post("/register")
def _register():
    return server.create_endpoint_response("client_registration")


@app.get("/keys")
def _keys():
    return jsonify(keys=[key.as_dict(private=False) for key in keys])


@app.post("/keys/rotate")
def _rotate():
    keys.append(RSAKey.generate_key(2048, {"kid": str(time.monotonic_ns()), "use": "sig"}))
    return jsonify(published=len(keys))


@app.post("/keys/withdraw")
def _withdraw():
    del keys[:-1]
    return jsonify(published=len(keys))


if __name__ == "__main__":
    listening = make_server("127.0.0.1", 0, app, threaded=True)
    issuer = f"http://127.0.0.1:{listening.server_port}"
    app.config["ISSUER"] = issuer
    made = Tokens(issuer, refresh_token_generator=lambda **_: secrets.token_urlsafe(24))
    server.register_token_generator("default", made)
    print(issuer, flush=True)
    listening.serve_forever()
