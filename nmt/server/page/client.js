// Sends requests to the server, and turns its errors into messages for users.

export class ServerError extends Error {
  /**
   * @param {string} message for users
   * @param {number} status 0 if there was no response
   * @param {number | null} retryAfter seconds after which a retry may succeed; null if it will not
   */
  constructor(message, status, retryAfter = null) {
    super(message);
    this.status = status;
    this.retryAfter = retryAfter;
  }
}

/** Returns the JSON response to a request. Throws a ServerError, or an AbortError. */
export async function send(path, { body, key, signal } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const request = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal };
  let response;
  let document;
  try {
    response = await fetch(path, request);
    document = await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError("The server does not respond. Your text is kept.", 0, 3);
  }
  if (!response.ok) throw makeError(response, document.error ?? "");
  return document;
}

function makeError(response, message) {
  const retryAfter = Number(response.headers.get("Retry-After")) || 3;
  switch (response.status) {
    case 401:
      return new ServerError("", 401);
    case 429:
      return new ServerError("The server is busy.", 429, retryAfter);
    case 503:
      return new ServerError("The server is shutting down. Your text is kept.", 503, retryAfter);
    case 504:
      return new ServerError("The translation took too long. Try a shorter text.", 504);
    case 500:
      return new ServerError("The server could not translate this text.", 500);
    default:
      return new ServerError(message || `The server returned an error (${response.status}).`, response.status);
  }
}
