// Hooks for the usual questions, on the application's store. For a store of your own, use it as a
// hook with a selector.

import { useRealtimeStore } from "./store.js";

export const useIsConnected = () => useRealtimeStore((s) => s.isConnected);
export const useConnectionStatus = () => useRealtimeStore((s) => s.connectionStatus);
export const useRecentTransactions = () => useRealtimeStore((s) => s.recentTransactions);
export const useNotifications = () => useRealtimeStore((s) => s.notifications);
export const useUnreadCount = () => useRealtimeStore((s) => s.unreadCount);
export const useBudgetAlerts = () => useRealtimeStore((s) => s.budgetAlerts);
export const useBudgets = () => useRealtimeStore((s) => s.budgets);
export const useGoalUpdates = () => useRealtimeStore((s) => s.goalUpdates);
export const useGoalCompletions = () => useRealtimeStore((s) => s.goalCompletions);
export const useAccountSyncs = () => useRealtimeStore((s) => s.accountSyncs);
export const useBalances = () => useRealtimeStore((s) => s.balances);
export const useInsights = () => useRealtimeStore((s) => s.insights);
export const useDashboard = () => useRealtimeStore((s) => s.dashboard);
export const useSystemAlerts = () => useRealtimeStore((s) => s.systemAlerts);
