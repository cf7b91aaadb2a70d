/** What became of each task, for a failure to say. */
export function describeTasks(tasks: readonly { task_id: string; state: string | null }[]): string {
  return tasks.map(({ task_id: id, state }) => `${id} ${state}`).join(', ');
}
