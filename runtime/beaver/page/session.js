// Who is signed in: a cookie that scripts cannot read holds it.

import { ask } from './api.js';

/** Returns `{role, name, …}` of the session; throws a problem where there is none. */
export const session = () => ask('GET', 'session');

const LINK = '#link=';

/** Signs in by the link of `beaver ui` where the address is one; it works once, so it is taken out. */
export async function signInByLink() {
  if (!location.hash.startsWith(LINK)) return null;
  const link = decodeURIComponent(location.hash.slice(LINK.length));
  location.replace('#/overview');
  return ask('POST', 'session', { body: { link } });
}

export const signIn = (token) => ask('POST', 'session', { body: { token } });

export const signOut = () => ask('DELETE', 'session');
