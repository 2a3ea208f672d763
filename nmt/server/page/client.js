// Asks the server, and says its refusals in words for people.

export class Refusal extends Error {
  /**
   * @param {string} message for people
   * @param {number} status 0 where there was no answer
   * @param {number | null} seconds after which asking again may help; null if it will not
   */
  constructor(message, status, seconds = null) {
    super(message);
    this.status = status;
    this.seconds = seconds;
  }
}

/** The answer to a request, as JSON; throws a Refusal, or an AbortError. */
export async function ask(path, { body, key, signal } = {}) {
  const headers = key ? { Authorization: `Bearer ${key}` } : {};
  const request = { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal };
  let answer;
  let document;
  try {
    answer = await fetch(path, request);
    document = await answer.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refusal("The server does not answer. Your text stays here.", 0, 3);
  }
  if (!answer.ok) throw refusal(answer, document.error ?? "");
  return document;
}

function refusal(answer, words) {
  const seconds = Number(answer.headers.get("Retry-After")) || 3;
  switch (answer.status) {
    case 401:
      return new Refusal("", 401);
    case 429:
      return new Refusal("The server is busy: many texts wait to be translated.", 429, seconds);
    case 503:
      return new Refusal("The server is stopping. Your text stays here.", 503, seconds);
    case 504:
      return new Refusal("This took the server too long. A shorter text may help.", 504);
    case 500:
      return new Refusal("The server failed on this text.", 500);
    default:
      return new Refusal(words || `The server refused this text (${answer.status}).`, answer.status);
  }
}
